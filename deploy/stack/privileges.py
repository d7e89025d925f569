"""As whom a server runs that refuses to run as root."""

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError

_NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Privileges:
    """The user id to take on (None: our own) and the words to put before a command to take it on."""

    user: int | None = None
    prefix: tuple[str, ...] = ()
    owner: int | None = None

    def give(self, path: Path) -> None:
        """Make `path` the server's own."""
        if self.owner is not None:
            os.chown(path, self.owner, self.owner)


def privileges_for(program: Path, folder: Path) -> Privileges:
    """How to run `program` with data below `folder`: as ourselves, or, when that is root, as `nobody`.

    Below a folder that only root may enter (a checkout in /root), `nobody` keeps the one capability to
    pass file permissions; the alternative would be to change permissions outside of the checkout.

    Raises:
        StackError: root cannot become anybody else here.
    """
    if os.geteuid() != 0:
        return Privileges()
    try:
        nobody = pwd.getpwnam(_NOBODY).pw_uid
    except KeyError:
        raise StackError(
            "postgres refuses to run as root and there is no user `nobody`: run this as another user"
        ) from None
    plain = Privileges(user=nobody, owner=nobody)
    if _can_run(plain, program, folder):
        return plain
    setpriv = shutil.which("setpriv")
    if setpriv:
        taking = (
            f"--reuid={nobody} --regid={nobody} --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"
        )
        capable = Privileges(prefix=(setpriv, *taking.split(), "--"), owner=nobody)
        if _can_run(capable, program, folder):
            return capable
    raise StackError(
        f"postgres refuses to run as root and `nobody` cannot reach {folder}: move the checkout or run as another user"
    )


def _can_run(privileges: Privileges, program: Path, folder: Path) -> bool:
    """Whether the program can be run and the folder be entered with these privileges."""
    try:
        done = subprocess.run(
            [*privileges.prefix, "/bin/sh", "-c", 'cd "$1" && "$2" --version', "sh", folder, program],
            capture_output=True,
            check=False,
            cwd="/",
            user=privileges.user,
            group=privileges.user,
            extra_groups=None if privileges.user is None else [],
        )
    except OSError:
        return False
    return done.returncode == 0
