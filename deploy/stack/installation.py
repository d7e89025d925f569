"""One Hookledger: a database, a broker and a master key, and the services that share them."""

import base64
import contextlib
import secrets
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from deploy.stack.errors import StackError
from deploy.stack.isolation import Isolation
from deploy.stack.places import CHECKOUT, make_folder, write_private
from deploy.stack.ports import free_port, is_free
from deploy.stack.server import Say
from deploy.stack.services import Service, environment, running_port

PORTS = {"registry": 8081, "ingress": 8080, "dispatcher": 8082}
"""In the order in which they start: ingress forwards to the registry."""

_ADMIN_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the services of one Hookledger have in common.

    Attributes:
        folder: keeps the master key, the logs and the process ids.
        corner: the database, the broker and the prefix of names on it.
        settings: more settings for every service, without the prefix `HOOKLEDGER_`.
        code: where `services` is imported from.
    """

    folder: Path
    corner: Isolation
    settings: Mapping[str, str] = field(default_factory=dict)
    code: Path = CHECKOUT

    def service(
        self,
        name: str,
        *,
        port: int | None = None,
        registry: Service | None = None,
        replica: str = "",
        settings: Mapping[str, str] | None = None,
    ) -> Service:
        """A replica of the service `name`, not started yet.

        Args:
            name: `registry`, `ingress` or `dispatcher`.
            port: where it listens; None picks a free one.
            registry: the one that ingress forwards to; ingress needs it.
            replica: tells several of the same name apart.
            settings: more settings for this one, without the prefix `HOOKLEDGER_`.
        """
        own = dict(self.settings) | dict(settings or {}) | {"DEV": "1"}
        if registry:
            own["REGISTRY_URL"] = registry.url
        return Service(
            name=name,
            folder=self.folder,
            port=port or free_port(),
            settings=self._common() | own,
            replica=replica,
            code=self.code,
        )

    def services(self, ports: Mapping[str, int] | None = None) -> dict[str, Service]:
        """One replica of each service, by name, not started yet; on free ports, unless `ports` names them."""
        ports = ports or {}
        registry = self.service("registry", port=ports.get("registry"))
        return {
            "registry": registry,
            "ingress": self.service("ingress", port=ports.get("ingress"), registry=registry),
            "dispatcher": self.service("dispatcher", port=ports.get("dispatcher")),
        }

    def migrate(self) -> None:
        """Bring the database to the version of this code.

        Raises:
            StackError: a migration failed.
        """
        self.admin("migrate")

    def create_key(self) -> str:
        """A new API key, of scope `admin`; made together with the organisation `default` on the first time.

        Raises:
            StackError: the command refused.
        """
        file = self.folder / "organisation"
        with contextlib.suppress(FileNotFoundError, StackError):  # or it is one of a database that is gone
            return self._create_key_of(file.read_text().strip())
        user = unquote(urlsplit(self.corner.amqp_url).username or "guest")
        reveal = ["--secret-reveal", "always"]  # a local stack: examples read secrets back
        organisation = self.admin("organisation", "create", "default", *reveal, "--amqp-user", user)
        write_private(file, f"{organisation}\n")
        return self._create_key_of(organisation)

    def admin(self, *words: str) -> str:
        """What `python -m services.admin <words>` prints, stripped.

        Raises:
            StackError: it failed; with its last line.
        """
        try:
            done = subprocess.run(
                [sys.executable, "-m", "services.admin", *words],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                env=environment(self._common()),
                cwd=self.code,
                timeout=_ADMIN_S,
            )
        except subprocess.TimeoutExpired:
            raise StackError(f"`hookledger {words[0]}` did not end in {_ADMIN_S:.0f} s") from None
        if done.returncode:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            reason = lines[-1].removeprefix("hookledger: ") if lines else "without a word"
            failure = StackError(f"`hookledger {words[0]}` failed: {reason}")
            for line in lines[-20:-1]:
                failure.add_note(line)
            raise failure
        return done.stdout.strip()

    def _create_key_of(self, organisation: str) -> str:
        return self.admin("key", "create", organisation, "--scope", "admin")

    def _common(self) -> dict[str, str]:
        return {
            "DATABASE_URL": self.corner.database_url,
            "AMQP_URL": self.corner.amqp_url,
            "AMQP_PREFIX": self.corner.amqp_prefix,
            "MASTER_KEY": master_key(self.folder),
        }


def master_key(folder: Path) -> str:
    """The key that encrypts secrets at rest: base64 of 32 random bytes, made once for a state folder."""
    file = make_folder(folder) / "master-key"
    with contextlib.suppress(FileNotFoundError):
        return file.read_text().strip()
    write_private(file, base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    return file.read_text().strip()


def choose_ports(folder: Path, say: Say) -> dict[str, int]:
    """For each service the port that it runs on, else its usual one, else, saying so, a free one."""
    chosen: dict[str, int] = {}
    for name, usual in PORTS.items():
        running = running_port(folder, name)
        port = running or (usual if is_free(usual) else free_port())
        if port != usual and not running:
            say(f"{name}: port {usual} is taken, moving to {port}")
        chosen[name] = port
    return chosen


def key_works(url: str, key: str) -> bool:
    """Whether the API at `url` accepts the key: one that came with another database is unknown here."""
    request = urllib.request.Request(f"{url}/api/v1/app?limit=1", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10):
            return True
    except urllib.error.HTTPError as answer:
        return answer.code not in {401, 403}
    except OSError:
        return False
