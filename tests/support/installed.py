"""Hookledger as an image has it: the wheel and what the lock file names, in an environment of their own."""

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from deploy.stack.places import CHECKOUT
from deploy.stack.ports import free_port
from deploy.stack.processes import Process, spawn

_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment, outside of the checkout."""

    folder: Path

    def program(self, name: str) -> Path:
        """One of its console entry points."""
        return self.folder / "bin" / name

    def run(self, *words: str, settings: Mapping[str, str]) -> str:
        """What `hookledger` prints.

        Raises:
            CalledProcessError: it exits with another code than 0.
        """
        done = subprocess.run(
            [self.program("hookledger"), *words],
            env=_environment(settings),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"hookledger {words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


def install(folder: Path) -> Environment:
    """Do what deploy/Dockerfile does: build the wheel, make an environment, install what is locked, then the wheel.

    What is locked is taken from the environment that the tests run in, which `make setup` has installed from the same
    lock by its hashes: no index is asked.
    """
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True)
    home = folder / "hookledger"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True)
    [packages] = home.glob("lib/python*/site-packages")
    for name, version in locked().items():
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another platform
            continue
        assert found.version == version, f"{name} {found.version} is installed, {version} is locked: run `make setup`"
        for top in {file.parts[0] for file in found.files or () if file.parts[0] not in {"..", "__pycache__"}}:
            (packages / top).symlink_to(Path(str(found.locate_file(top))))
    [wheel] = (folder / "dist").glob("*.whl")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--disable-pip-version-check", str(wheel)], check=True, cwd=folder)
    return Environment(folder=home)


def locked() -> dict[str, str]:
    """What requirements.lock names, with its versions."""
    text = (CHECKOUT / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, flags=re.MULTILINE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A service that runs by its entry point."""

    url: str
    log: Path
    process: Process


@contextmanager
def running(environment: Environment, name: str, settings: Mapping[str, str]) -> Iterator[Running]:
    """A service, ready; SIGTERM at the end."""
    port = free_port()
    log = environment.folder / f"{name}.log"
    variables = _environment({**settings, "HOST": "127.0.0.1", "PORT": str(port)})
    program = environment.program(f"hookledger-{name}")
    started = Running(
        url=f"http://127.0.0.1:{port}",
        log=log,
        process=spawn([program], log=log, env=variables, cwd=environment.folder),
    )
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not _ready(started.url):
            assert started.process.alive, f"{name} ended: {log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"{name} is not ready: {log.read_text()[-2000:]}"
            time.sleep(0.05)
        yield started
    finally:
        started.process.stop(grace_s=_STOP_SECONDS)


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _environment(settings: Mapping[str, str]) -> dict[str, str]:
    """As bare as a container's."""
    return {"PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"} | {
        f"HOOKLEDGER_{name}": value for name, value in settings.items()
    }
