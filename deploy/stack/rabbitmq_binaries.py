"""Finds RabbitMQ's binaries on this machine, or unpacks the distribution's packages into a folder, without root."""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.packages import Packages
from deploy.stack.places import locked, make_folder
from deploy.stack.server import Say

_BROKER = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"
_WHAT_TO_DO = "install rabbitmq-server, start Docker, or set HOOKLEDGER_AMQP_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitMQBinaries:
    """Where the broker's start script and Erlang are."""

    sbin: Path
    epmd: Path
    origin: str
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """The broker's version, as its folder is named."""
        return self.sbin.parent.name.rpartition("-")[2]


def installed() -> RabbitMQBinaries | None:
    """The broker that is installed on this machine, if any."""
    scripts = sorted(Path("/").glob(_BROKER))
    epmd = shutil.which("epmd")
    if not scripts or not epmd or not shutil.which("erl"):
        return None
    # Not the wrapper in /usr/sbin: it insists on a user of its own.
    return RabbitMQBinaries(sbin=scripts[-1].parent, epmd=Path(epmd), origin="installed")


def unpacked(cache: Path) -> RabbitMQBinaries | None:
    """The broker that `unpack` left in `cache`, if any."""
    root = cache / "rabbitmq-dist"
    scripts = sorted(root.glob(_BROKER))
    mappers = sorted(root.glob("usr/lib/erlang/erts-*/bin/epmd"))
    if not scripts or not mappers:
        return None
    environment = {"PATH": f"{root / 'usr/lib/erlang/bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    libraries = [str(folder) for pattern in ("usr/lib/*-linux-gnu", "lib/*-linux-gnu") for folder in root.glob(pattern)]
    if libraries:
        environment["LD_LIBRARY_PATH"] = os.pathsep.join(
            [*libraries, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        )
    return RabbitMQBinaries(sbin=scripts[-1].parent, epmd=mappers[-1], origin="unpacked", environment=environment)


def unpack(cache: Path, say: Say) -> RabbitMQBinaries:
    """Download RabbitMQ and Erlang as packages of the distribution (34 MB) and unpack them into `cache`.

    Raises:
        StackError: this machine has no apt, or the packages cannot be had.
    """
    with locked(cache / "rabbitmq-dist.lock"):
        found = unpacked(cache)  # by somebody else, while we waited
        if found:
            return found
        draft = cache / "rabbitmq-dist.draft"
        shutil.rmtree(draft, ignore_errors=True)
        say(f"rabbitmq: unpacking the distribution's packages into {cache.name} (once; 34 MB)")
        try:
            packages = Packages.fetch_index(make_folder(draft / "apt"))
            erlang = [name for name in packages.needed_by("rabbitmq-server") if name.startswith("erlang-")]
            libraries = packages.missing_libraries(erlang)
            packages.unpack(["rabbitmq-server", *erlang, *libraries], make_folder(draft / "root"))
            _make_movable(draft / "root/usr/lib/erlang/bin/erl")
            shutil.rmtree(cache / "rabbitmq-dist", ignore_errors=True)
            (draft / "root").rename(cache / "rabbitmq-dist")
        except StackError as reason:
            raise StackError(f"no RabbitMQ on this machine, and {reason}: {_WHAT_TO_DO}") from reason
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        found = unpacked(cache)
        if not found:
            raise StackError(f"the distribution's rabbitmq-server package is laid out in an unknown way: {_WHAT_TO_DO}")
        return found


def _make_movable(erl: Path) -> None:
    """Let Erlang's start script find its folder by its own place instead of `/usr/lib/erlang`."""
    if not erl.exists():
        return
    text = erl.read_text()
    here = '"$(cd "$(dirname "$0")/.." && pwd)"'
    erl.write_text(re.sub(r"ROOTDIR=/usr/lib/erlang\b", lambda _: f"ROOTDIR={here}", text))
