"""The receiver of the bench: answers 200 to everything, as cheaply as Python can, and remembers what it saw.

`GET /count/` tells how many requests have come to it, `GET /count/<folder>` how many to paths below that folder, and
`GET /seen/<n>` of each after the first `n`, a line each: path, `webhook-id`, the sender's stamp, the moment of arrival
by the machine's monotonic clock and by its wall clock.

Below `/retry/` the first request of each id is answered 500; below `/flaky/` one in ten is. Below `/due/<at>/<rate>/`
the first of each id is answered 503, to come again when it is its turn: from the time `at` on, `rate` a second. Below
`/hang/` nothing is answered until `GET /let-go`, and again after `GET /hold`.
"""

import asyncio
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

import uvloop

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_ID: Final = re.compile(rb"\r\nwebhook-id: *(\S+)", re.IGNORECASE)
_STAMP: Final = b'"at":"'
_STAMP_BYTES: Final = 17
_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
_FAILED: Final = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
_LATER: Final = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nContent-Length: 0\r\n\r\n"
_FLAKY_EVERY: Final = 10

Seen = tuple[bytes, bytes, bytes, float, float]
_SEEN: Final[list[Seen]] = []
_CAME: Final[Counter[bytes]] = Counter()
_FAILED_ONCE: Final[set[bytes]] = set()
_CHANCE: Final = random.Random(7)


class Hold:
    """Whoever is not answered until they are let go."""

    def __init__(self) -> None:
        self._holds = True
        self._held: list[Callable[[], None]] = []

    def add(self, let_go: Callable[[], None]) -> None:
        if self._holds:
            self._held.append(let_go)
        else:
            let_go()

    def set(self, *, holds: bool) -> None:
        self._holds = holds
        if not holds:
            while self._held:
                self._held.pop()()


_HOLD: Final = Hold()


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
            answer = _answer(held, end, arrived, at)
            if answer is None:
                _HOLD.add(self._let_go)
            else:
                self._transport.write(answer)
            held = held[size:]
        self._held = held

    def _let_go(self) -> None:
        self._transport.write(_OK)  # or to nobody, where the sender has given up


def _answer(request: bytes, end: int, arrived: float, at: float) -> bytes | None:
    method, path, _ = request.split(b" ", 2)
    if method == b"GET":
        text = _asked(path)
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
    found = _ID.search(request, 0, end)
    name = found[1] if found else b"-"
    stamp = request.find(_STAMP, end, end + 64)
    begins = stamp + len(_STAMP)
    _SEEN.append((path, name, request[begins : begins + _STAMP_BYTES] if stamp > 0 else b"0", arrived, at))
    folder, _, rest = path[1:].partition(b"/")
    _CAME[folder] += 1
    match folder:
        case b"retry" | b"due" if name not in _FAILED_ONCE:
            _FAILED_ONCE.add(name)
            return _FAILED if folder == b"retry" else _later(rest, at)
        case b"flaky" if not _CHANCE.randrange(_FLAKY_EVERY):
            return _FAILED
        case b"hang":
            return None
        case _:
            return _OK


def _later(asked: bytes, at: float) -> bytes:
    """Whole seconds from now; what comes in evenly is due as evenly."""
    begin, rate, _ = asked.split(b"/", 2)
    turn = float(begin) + (len(_FAILED_ONCE) - 1) / float(rate)
    return _LATER % max(1, round(turn - at))


def _asked(path: bytes) -> bytes:
    match path[1:].partition(b"/"):
        case b"count", _, folder:
            return str(_CAME[folder] if folder else len(_SEEN)).encode()
        case b"let-go" | b"hold" as word, _, _:
            _HOLD.set(holds=word == b"hold")
            return b""
        case _, _, first:
            return _told(int(first))


def _told(first: int) -> bytes:
    return b"".join(b"%b %b %b %.6f %.6f\n" % seen for seen in _SEEN[first:])


async def main() -> None:
    """Listen on a free port, say which."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
