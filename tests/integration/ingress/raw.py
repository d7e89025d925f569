"""Requests as no client would send them, over a bare socket."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """What came back over a raw socket, and how long it took."""

    status: int
    text: str
    seconds: float

    @property
    def headers(self) -> dict[str, str]:
        """By their names in lower case."""
        lines = [line.partition(":") for line in self.text.partition("\r\n\r\n")[0].split("\r\n")[1:]]
        return {name.lower(): value.strip() for name, _, value in lines}

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.text.partition("\r\n\r\n")[2])


def request(
    path: str, headers: Mapping[str, str], body: bytes = b"", *, method: str = "POST", chunked: bool = False
) -> bytes:
    """A request with these headers, whose body's length is declared unless it comes in chunks, or a header says it."""
    framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    lines = [
        f"{method} {path} HTTP/1.1",
        *(f"{name}: {value}" for name, value in ({"Host": "a"} | framing | dict(headers)).items()),
    ]
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if chunked and body else b"0\r\n\r\n" if chunked else body
    return "\r\n".join([*lines, "", ""]).encode() + sent


async def talk(url: str, *pieces: bytes | float, patience: float = 10) -> RawAnswer:
    """Send pieces over one connection, a number being a pause in seconds, and read the answer until it is over."""
    reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
    began = time.monotonic()

    async def send() -> None:
        for piece in pieces:
            if isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            else:
                await asyncio.sleep(piece)

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(patience):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            declared = next(
                (int(line.split(":")[1]) for line in head.lower().splitlines() if line.startswith("content-length")), 0
            )
            bodiless = isinstance(pieces[0], bytes) and pieces[0].startswith(b"HEAD ")
            body = await reader.readexactly(0 if bodiless else declared)
    finally:
        sending.cancel()
        await asyncio.wait({sending})
        writer.close()
    return RawAnswer(status=int(head.split()[1]), text=head + body.decode(), seconds=time.monotonic() - began)
