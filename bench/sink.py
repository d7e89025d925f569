"""The receiver of the bench: answers 200 to everything, as cheaply as Python can, and remembers what it saw.

`GET /count` tells how many requests it has answered, `GET /seen/<n>` tells of each after the first `n`, a line each:
path, `webhook-id`, the sender's stamp, the moment of arrival by the machine's monotonic clock and by its wall clock.
Below `/retry/` the first request of each id is answered 500.
"""

import asyncio
import re
import time
from typing import Final, cast

import uvloop

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID: Final = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_STAMP: Final = b'"at":"'
_STAMP_BYTES: Final = 17
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"

Seen = tuple[bytes, bytes, bytes, float, float]
_SEEN: Final[list[Seen]] = []
_FAILED_ONCE: Final[set[bytes]] = set()


class Sink(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are of no common class
        self._held = b""

    def data_received(self, data: bytes) -> None:
        arrived, at = time.monotonic(), time.time()
        held = self._held + data if self._held else data
        while (end := held.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(held, 0, end)
            size = end + 4 + (int(length[1]) if length else 0)
            if len(held) < size:
                break
            self._transport.write(_answer(held, end, arrived, at))
            held = held[size:]
        self._held = held


def _answer(request: bytes, end: int, arrived: float, at: float) -> bytes:
    method, path, _ = request.split(b" ", 2)
    if method == b"GET":
        text = str(len(_SEEN)).encode() if path == b"/count" else _told(int(path.rpartition(b"/")[2]))
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
    found = _ID.search(request, 0, end)
    name = found[1] if found else b"-"
    stamp = request.find(_STAMP, end, end + 64)
    begins = stamp + len(_STAMP)
    _SEEN.append((path, name, request[begins : begins + _STAMP_BYTES] if stamp > 0 else b"0", arrived, at))
    if path.startswith(b"/retry/") and name not in _FAILED_ONCE:
        _FAILED_ONCE.add(name)
        return _FAILED
    return _OK


def _told(first: int) -> bytes:
    return b"".join(b"%b %b %b %.6f %.6f\n" % seen for seen in _SEEN[first:])


async def main() -> None:
    """Listen on a free port, say which."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
