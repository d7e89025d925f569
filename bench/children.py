"""The bench's own processes: run one and read what it says, and keep a sink."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from deploy.stack.errors import StackError
from deploy.stack.places import CHECKOUT

Said = TypeVar("Said")
_LOOK = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request as the sink saw it: the sender's stamp and the arrival by the monotonic clock, and by the wall's."""

    path: str
    name: str
    sent: float
    arrived: float
    at: float


class Sink:
    """A sink in another process; one connection is kept to it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def count(self, folder: str = "") -> int:
        """How many requests have come to it, or to a folder of it."""
        return int(await self._get(f"/count/{folder}"))

    async def seen(self, first: int = 0) -> list[Request]:
        """Each request after the first so many."""
        lines = (await self._get(f"/seen/{first}")).decode().splitlines()
        return [
            Request(path=path, name=name, sent=float(sent), arrived=float(arrived), at=float(at))
            for path, name, sent, arrived, at in (line.split(" ") for line in lines)
        ]

    async def let_go(self) -> None:
        """Have it answer what hangs, and whatever comes below `/hang/` from now on."""
        await self._get("/let-go")

    async def hold(self) -> None:
        """Have it answer nothing below `/hang/` from now on."""
        await self._get("/hold")

    async def until(self, count: int, folder: str = "") -> None:
        """Wait until so many have come to it, or to a folder of it."""
        while await self.count(folder) < count:  # noqa: ASYNC110  another process's count
            await asyncio.sleep(_LOOK)

    async def _get(self, path: str) -> bytes:
        if self._streams is None:
            host, port = self.url.removeprefix("http://").split(":")
            self._streams = await asyncio.open_connection(host, int(port))
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: sink\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0]))


@asynccontextmanager
async def listening(module: str) -> AsyncIterator[tuple[str, int]]:
    """A server in a process of its own that prints its port; its URL and process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module), stdout=asyncio.subprocess.PIPE, cwd=CHECKOUT
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(await process.stdout.readline())}", process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """A new sink."""
    async with listening("bench.sink") as (url, _):
        yield Sink(url)


async def said(kind: type[Said], module: str, *words: object, python: str | Path = sys.executable) -> Said:
    """What a module of ours prints as JSON.

    Raises:
        StackError: it failed.
    """
    return msgspec.json.decode(await output([python, "-m", module, *words]), type=kind)


async def output(argv: Sequence[object]) -> bytes:
    """What a command prints.

    Raises:
        StackError: it failed; with its last line.
    """
    process = await asyncio.create_subprocess_exec(
        *map(str, argv), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=CHECKOUT
    )
    try:
        told, complaints = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        lines = complaints.decode(errors="replace").strip().splitlines() or ["without a word"]
        raise StackError(f"{argv[2]} failed: {lines[-1]}")
    return told
