"""The pages that one follows step by step: every command in them runs, and prints what the page says.

Of a page, `python NAME` and the like are files, `sh` blocks are one script, and `text` blocks are lines of what it prints,
in their order. `console` blocks fetch packages from elsewhere or are the operator's: of these, `rabbitmqctl` and
`hookledger` run first.
"""

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack.places import CHECKOUT
from deploy.stack.ports import free_port
from deploy.stack.rabbitmq import LocalRabbitMQ
from deploy.stack.servers import Servers
from deploy.stack.services import environment
from tests.support.platform import Platform

BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
MADE_ALREADY = re.compile(r"^(make up|\. \.hookledger/env).*\n", flags=re.MULTILINE)
GO_MODULE = "github.com/standard-webhooks/standard-webhooks/libraries@v0.0.1"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place where the pages' paths lead to the checkout."""
    (tmp_path / "examples").symlink_to(CHECKOUT / "examples")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


class Page:
    """A page of `docs`, or of its sections only the ones that are named and what stands before the first.

    Args:
        name: its file.
        platform: whose exchanges it publishes to.
        sections: titles; None takes all.
    """

    def __init__(self, name: str, platform: Platform, *sections: str) -> None:
        first, *others = re.split(r"^## ", (CHECKOUT / "docs" / name).read_text(), flags=re.MULTILINE)
        chosen = [text for text in others if not sections or text.partition("\n")[0] in sections]
        prefix = platform.corner.amqp_prefix
        text = "".join([first, *chosen]).replace("9000", str(free_port()))
        text = text.replace("hookledger.publish", f"{prefix}.publish").replace(
            r"hookledger\.publish", rf"{prefix}\.publish"
        )
        self._blocks = [match.groups() for match in BLOCK.finditer(text)]
        self._platform = platform

    def said(self) -> Iterator[str]:
        """The lines that the page says are printed."""
        for kind, _, text in self._blocks:
            if kind == "text":
                yield from text.splitlines()

    def operators(self) -> Iterator[list[str]]:
        """The commands of the operator's that it shows."""
        for kind, _, text in self._blocks:
            if kind == "console":
                yield from (shlex.split(line.removeprefix("$ ")) for line in text.splitlines())

    async def run(self, folder: Path) -> str:
        """Write its files and run its commands; what they print."""
        for _, name, text in self._blocks:
            if name:
                (folder / name).write_text(text)
        commands = "".join(text for kind, _, text in self._blocks if kind == "sh")
        script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + MADE_ALREADY.sub("", commands)
        settings = {
            "URL": self._platform.url,
            "API_KEY": self._platform.key,
            "AMQP_URL": self._platform.corner.amqp_url,
        }
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        done = await asyncio.to_thread(
            subprocess.run,
            ["bash", "-c", script],
            cwd=folder,
            env=environment(settings) | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    async def runs_as_it_says(self, folder: Path) -> None:
        printed = await self.run(folder)
        place = 0
        for line in self.said():
            place = printed.find(line, place)
            assert place >= 0, f"{line!r} is not printed, or not here:\n{printed}"
            place += len(line)


@pytest.mark.parametrize("name", ["quickstart.md", "receive.md"])
async def test_a_page_runs_as_it_says(name: str, platform: Platform, folder: Path) -> None:
    await Page(name, platform).runs_as_it_says(folder)


async def test_publishing_runs_as_its_page_says(servers: Servers, platform: Platform, folder: Path) -> None:
    page = Page("publish.md", platform)
    for program, *words in page.operators():
        if program == "hookledger":
            await platform.admin(*words)
        elif program == "rabbitmqctl" and isinstance(servers.broker, LocalRabbitMQ):
            await asyncio.to_thread(servers.broker.control, *words)
    await page.runs_as_it_says(folder)


async def test_verifying_in_python_runs_as_its_page_says(platform: Platform, folder: Path) -> None:
    await Page("verify.md", platform, "Python").runs_as_it_says(folder)


async def test_verifying_in_javascript_runs_as_its_page_says(platform: Platform, folder: Path) -> None:
    if not succeeds(folder, "node", "-e", "require.resolve('standardwebhooks')"):
        pytest.skip("there is no node, or no standardwebhooks in NODE_PATH")
    await Page("verify.md", platform, "JavaScript").runs_as_it_says(folder)


async def test_verifying_in_go_runs_as_its_page_says(
    platform: Platform, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPROXY", "off")  # only what was fetched before
    if not succeeds(folder, "go", "mod", "init", "receiver") or not succeeds(folder, "go", "get", GO_MODULE):
        pytest.skip(f"there is no go, or no {GO_MODULE} in its module cache")
    await Page("verify.md", platform, "Go").runs_as_it_says(folder)


def succeeds(folder: Path, program: str, *words: str) -> bool:
    """Whether there is such a program, and it ends well."""
    if shutil.which(program) is None:
        return False
    return subprocess.run([program, *words], cwd=folder, capture_output=True, check=False).returncode == 0
