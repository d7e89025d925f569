"""The virtual environment of this checkout: made from the lock file with hashes, and only when it changed.

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
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.packages import Packages
from deploy.stack.places import CHECKOUT, HOME, locked, make_folder

ENVIRONMENT = CHECKOUT / ".venv"
_PYTHON = ENVIRONMENT / "bin" / "python"
_STAMP = ENVIRONMENT / "hookledger-stamp"
_LOCK = CHECKOUT / "requirements-dev.lock"
_DEBIAN_WHEELS = Path("/usr/share/python-wheels")


def main() -> int:
    """Make or renew the environment; exit code 2 where that is impossible, with one line that says why."""
    try:
        with locked(HOME / "setup.lock"):
            _set_up()
    except StackError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 2
    return 0


def _set_up() -> None:
    wanted = _stamp()
    if _PYTHON.exists() and _STAMP.exists() and _STAMP.read_text() == wanted:
        print("setup: .venv is up to date")
        return
    began = time.monotonic()
    _STAMP.unlink(missing_ok=True)
    if not _works():
        print(f"setup: making .venv with Python {sys.version.split()[0]}", flush=True)
        _make()
    packages = len(re.findall(r"^[A-Za-z0-9._-]+(?:\[.*\])?==", _LOCK.read_text(), flags=re.MULTILINE))
    print(f"setup: installing the {packages} packages of {_LOCK.name}", flush=True)
    _pip("install", "--require-hashes", "-r", str(_LOCK), failing=f"pip cannot install {_LOCK.name}")
    _pip("install", "--no-deps", "--no-build-isolation", "-e", str(CHECKOUT), failing="pip cannot install Hookledger")
    _STAMP.write_text(wanted)
    print(f"setup: .venv is ready  {time.monotonic() - began:.1f} s")


def _stamp() -> str:
    """What the environment was made from: the lock, the project, the place, the Python."""
    try:
        parts = [_LOCK.read_bytes(), (CHECKOUT / "pyproject.toml").read_bytes()]
    except FileNotFoundError as missing:
        raise StackError(f"{missing.filename} is missing: the checkout is incomplete") from None
    parts += [str(CHECKOUT).encode(), f"{sys.version_info[:2]}".encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest() + "\n"


def _works() -> bool:
    """Whether there is an environment with pip and the Python that runs this."""
    program = "import sys, pip; print(sys.prefix, *sys.version_info[:2], sep='\\n')"
    try:
        done = subprocess.run(
            [_PYTHON, "-c", program], capture_output=True, text=True, check=False, env=_surroundings()
        )
    except OSError:
        return False
    expected = [str(ENVIRONMENT), *map(str, sys.version_info[:2])]
    return done.returncode == 0 and done.stdout.splitlines() == expected


def _make() -> None:
    """Make an empty environment with pip in it."""
    if ENVIRONMENT.is_symlink():
        raise StackError(".venv is a link to an environment elsewhere: remove it first")
    shutil.rmtree(ENVIRONMENT, ignore_errors=True)
    # Debian keeps ensurepip in a package of its own, python3-venv.
    ensurepip = importlib.util.find_spec("ensurepip")
    complete = ensurepip is not None and ensurepip.origin is not None
    try:
        venv.create(ENVIRONMENT, with_pip=complete, symlinks=True)
    except (OSError, subprocess.CalledProcessError) as refusal:
        raise StackError(f"python3 cannot make a virtual environment: {refusal}") from None
    if complete:
        return
    wheel = _debian_pip()
    # A wheel can be run in place: pip installs itself from itself.
    program = [str(_PYTHON), str(wheel / "pip"), "install", "--no-index", "--quiet", str(wheel)]
    _call(program, failing="pip cannot install itself: install python3-venv")


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


def _pip(*words: str, failing: str) -> None:
    # What was downloaded is kept here too: nothing outside of the checkout is written.
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--cache-dir", str(HOME / "cache" / "pip")]
    _call([str(_PYTHON), "-m", "pip", *words, *quiet], failing=f"{failing} (its reason is above)")


def _call(argv: Sequence[str], *, failing: str) -> None:
    if subprocess.run(argv, check=False, cwd=CHECKOUT, env=_surroundings()).returncode:
        raise StackError(failing)


def _surroundings() -> dict[str, str]:
    """Our environment, without what would mix another Python or environment into this one."""
    foreign = ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX")
    return {name: value for name, value in os.environ.items() if name not in foreign}
