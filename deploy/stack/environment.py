"""The virtual environments of this checkout: made from a lock file with hashes, and only when it changed.

Everything runs in `.venv`. What the benchmark compares with has dependencies that may not mix with ours, and so an
environment of its own.

Standard library only. pip's own configuration (index, proxy, certificates) is the user's and is left alone.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.packages import Packages
from deploy.stack.places import CHECKOUT, HOME, locked, make_folder

_DEBIAN_WHEELS = Path("/usr/share/python-wheels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment.

    Attributes:
        folder: where it is.
        lock: what is installed in it.
        with_project: whether Hookledger itself is too, from this checkout.
    """

    folder: Path
    lock: Path
    with_project: bool

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def set_up(self) -> None:
        """Make or renew it, where it is not as the lock file has it.

        Raises:
            StackError: that is impossible.
        """
        wanted, stamp = self._stamp(), self.folder / "hookledger-stamp"
        if self.python.exists() and stamp.exists() and stamp.read_text() == wanted:
            print(f"setup: {self._name} is up to date")
            return
        began = time.monotonic()
        stamp.unlink(missing_ok=True)
        if not self._works():
            print(f"setup: making {self._name} with Python {sys.version.split()[0]}", flush=True)
            self._make()
        packages = len(re.findall(r"^[A-Za-z0-9._-]+(?:\[.*\])?==", self.lock.read_text(), flags=re.MULTILINE))
        print(f"setup: installing the {packages} packages of {self.lock.name}", flush=True)
        self._pip("install", "--require-hashes", "-r", str(self.lock), failing=f"pip cannot install {self.lock.name}")
        if self.with_project:
            editable = ["install", "--no-deps", "--no-build-isolation", "-e", str(CHECKOUT)]
            self._pip(*editable, failing="pip cannot install Hookledger")
        stamp.write_text(wanted)
        print(f"setup: {self._name} is ready  {time.monotonic() - began:.1f} s")

    @property
    def _name(self) -> str:
        return str(self.folder.relative_to(CHECKOUT))

    def _stamp(self) -> str:
        """What the environment is made from: the lock, the project, the place, the Python."""
        try:
            parts = [self.lock.read_bytes()]
            if self.with_project:
                parts.append((CHECKOUT / "pyproject.toml").read_bytes())
        except FileNotFoundError as missing:
            raise StackError(f"{missing.filename} is missing: the checkout is incomplete") from None
        parts += [str(CHECKOUT).encode(), f"{sys.version_info[:2]}".encode()]
        return hashlib.sha256(b"\0".join(parts)).hexdigest() + "\n"

    def _works(self) -> bool:
        """Whether there is an environment with pip and the Python that runs this."""
        program = "import sys, pip; print(sys.prefix, *sys.version_info[:2], sep='\\n')"
        try:
            done = subprocess.run(
                [self.python, "-c", program], capture_output=True, text=True, check=False, env=_surroundings()
            )
        except OSError:
            return False
        expected = [str(self.folder), *map(str, sys.version_info[:2])]
        return done.returncode == 0 and done.stdout.splitlines() == expected

    def _make(self) -> None:
        """Make an empty environment with pip in it."""
        if self.folder.is_symlink():
            raise StackError(f"{self._name} is a link to an environment elsewhere: remove it first")
        shutil.rmtree(self.folder, ignore_errors=True)
        # Debian keeps ensurepip in a package of its own, python3-venv.
        ensurepip = importlib.util.find_spec("ensurepip")
        complete = ensurepip is not None and ensurepip.origin is not None
        try:
            venv.create(self.folder, with_pip=complete, symlinks=True)
        except (OSError, subprocess.CalledProcessError) as refusal:
            raise StackError(f"python3 cannot make a virtual environment: {refusal}") from None
        if complete:
            return
        wheel = _debian_pip()
        # A wheel can be run in place: pip installs itself from itself.
        program = [str(self.python), str(wheel / "pip"), "install", "--no-index", "--quiet", str(wheel)]
        _call(program, failing="pip cannot install itself: install python3-venv")

    def _pip(self, *words: str, failing: str) -> None:
        # What was downloaded is kept here too: nothing outside of the checkout is written.
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--cache-dir", str(HOME / "cache" / "pip")]
        _call([str(self.python), "-m", "pip", *words, *quiet], failing=f"{failing} (its reason is above)")


MAIN = Environment(folder=CHECKOUT / ".venv", lock=CHECKOUT / "requirements-dev.lock", with_project=True)
BENCH = Environment(folder=HOME / "bench-venv", lock=CHECKOUT / "requirements-bench.lock", with_project=False)


def main(words: Sequence[str] = ()) -> int:
    """Make or renew `.venv`, or the benchmark's; exit code 2 where that is impossible, with one line that says why."""
    try:
        with locked(HOME / "setup.lock"):
            (BENCH if "bench" in words else MAIN).set_up()
    except StackError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


def _debian_pip() -> Path:
    """Debian's wheel of pip: the installed one, or one from its package, unpacked into `.hookledger/`."""
    unpacked = HOME / "pip-wheel"
    for folder in (_DEBIAN_WHEELS, unpacked / _DEBIAN_WHEELS.relative_to("/")):
        found = sorted(folder.glob("pip-*.whl"))
        if found:
            return found[-1]
    print("setup: this Python has no pip, unpacking the distribution's", flush=True)
    index = make_folder(HOME / "pip-wheel.index")
    try:
        Packages.fetch_index(index).unpack(["python3-pip-whl"], make_folder(unpacked))
    except StackError as reason:
        raise StackError(f"this Python has no pip, and {reason}: install python3-venv") from reason
    finally:
        shutil.rmtree(index, ignore_errors=True)
    found = sorted(unpacked.glob("**/pip-*.whl"))
    if not found:
        raise StackError("the distribution's package python3-pip-whl holds no wheel of pip: install python3-venv")
    return found[-1]


def _call(argv: Sequence[str], *, failing: str) -> None:
    if subprocess.run(argv, check=False, cwd=CHECKOUT, env=_surroundings()).returncode:
        raise StackError(failing)


def _surroundings() -> dict[str, str]:
    """Our environment, without what would mix another Python or environment into this one."""
    foreign = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    return {name: value for name, value in os.environ.items() if name not in foreign}
