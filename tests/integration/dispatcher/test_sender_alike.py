"""The lean sender beside the reference: one answer, byte for byte, comes to the same with both.

Where they differ on purpose, the lean one is the stricter, and a test below says how.
"""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from services.dispatcher.connections import trusted
from services.dispatcher.sender import Report
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, raw_receiver
from tests.integration.dispatcher.sending import TRUST, SenderOf, send
from tests.support.certificates import server_tls

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def ok(*fields: bytes, after: bytes = b"ok") -> bytes:
    """A 200 with these fields."""
    return b"".join([b"HTTP/1.1 200 OK\r\n", *(field + b"\r\n" for field in fields), b"\r\n", after])


ANSWERS = [
    OK, OK + b"!", OK + b"\r\n", OK + OK, OK + b"garbage\r\n\r\n", CLOSING, CLOSING + b"\r\n", CLOSING + b"x",
    CHUNKED + b"2\r\nok\r\n0\r\n\r\n", CHUNKED + b"2;a=b\r\nok\r\n3 \r\nabc\r\n0\r\nTrailer: 1\r\n\r\n",
    CHUNKED + b"2\r\nok\r\n0\r\n" + b"T: 1\r\n" * 200 + b"\r\n",
    CHUNKED + b"2\r\nok\r\n0\r\nT: " + b"1" * 9000 + b"\r\n\r\n",
    CHUNKED + b"2;" + b"1" * 9000 + b"\r\nok\r\n0\r\n\r\n",
    CHUNKED + b"2\nok\n0\n\n", CHUNKED + b"2\r\nok0\r\n\r\n", CHUNKED + b"0x2\r\nok\r\n0\r\n\r\n", CHUNKED + b"2\r\nok",
    b"HTTP/1.0 200 OK\r\n\r\nbody", b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 204 No\r\n\r\n", b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 100 C\r\n\r\n" + OK, b"HTTP/1.1 103 C\r\nLink: a\r\n\r\n" + OK, b"HTTP/1.1 150 C\r\n\r\n" + OK,
    b"HTTP/1.1 999 C\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 600\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 B\r\nRetry-After: 12\r\nretry-after: 13\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 429 B\r\nRetry-After:  7 \r\nContent-Length: 0\r\n\r\n",
    ok(b"Transfer-Encoding: chunked, gzip"), ok(b"Transfer-Encoding: gzip, chunked", after=b"2\r\nok\r\n0\r\n\r\n"),
    ok(b"Transfer-Encoding: identity"), ok(b"Transfer-Encoding: xchunked"), ok(b"Transfer-Encoding : chunked"),
    ok(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", after=b"2\r\nok\r\n0\r\n\r\n"),
    ok(b"Transfer-Encoding: chunked", b"Content-Length: 2", after=b"2\r\nok\r\n0\r\n\r\n"),
    ok(b"Content-Length: 2", b"Content-Length: 2"), ok(b"Content-Length: 2, 2"), ok(b"Content-Length: +2"),
    ok(b"Content-Length: 0x2"), ok(b"Content-Length : 2"), ok(b"Content-Length:"), ok(b" Content-Length: 2"),
    ok(b"X: 1", b" Content-Length: 2"), ok(b"Content-Length: 99999999999999999999999"), ok(b"Content-Length: 5"),
    ok(b"X\xff: \xff\xfe", b"Content-Length: 2"), ok(b"X: \x01\x7f", b"Content-Length: 2"),
    ok(b"X: a\0", b"Content-Length: 2"), ok(b"X: a\rb", b"Content-Length: 2"), ok(b"X", b"Content-Length: 2"),
    ok(b"X: " + b"a" * 8189, b"Content-Length: 2"), ok(b"X: " + b"a" * 8190, b"Content-Length: 2"),
    ok(*[b"X: a"] * 127, b"Content-Length: 2"), ok(*[b"X: a"] * 128, b"Content-Length: 2"),
    ok(b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: 2"),
    ok(b"Content-Length: 65536", after=b"x" * 65536),
    b"HTTP/1.1 200 " + b"O" * 8190 + b"\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 " + b"O" * 8191 + b"\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", b"\r\n\r\n" + OK, b"HTTP/1.2 200 OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n",
    b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"ICE/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"RTSP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"", b"H", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nA", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/0.9 200 OK\r\n\r\nok",
]  # fmt: skip


def saying(answer: bytes, *, keeps: bool) -> Callable[[RawReceiver], Conversation]:
    """To the first request the answer, to later ones a proper one; `keeps` leaves the first connection open."""

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            while True:
                await receiver.read_request(reader)
                first = len(receiver.requests) == 1
                writer.write(answer if first else OK)
                await writer.drain()
                if not (first and keeps):
                    return

        return conversation

    return converse


async def what_becomes_of(
    name: str, answer: bytes, *, keeps: bool, tls: ssl.SSLContext | None = None, trust: ssl.SSLContext = TRUST
) -> tuple[list[Report], int]:
    """Of two sends, and on how many connections they went."""
    sender = SenderOf("lean" if name == "lean" else "aiohttp")
    async with raw_receiver(saying(answer, keeps=keeps), tls=tls) as receiver, sender(trust=trust) as client:
        url = receiver.url(scheme="https" if tls else "http")
        reports = [await send(client, url, seconds=1.0 if keeps else 5.0)]
        await asyncio.sleep(0.002)
        reports.append(await send(client, url))
        return reports, receiver.connections


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept-open", "closed"])
def test_an_answer_comes_to_the_same_with_both(
    on_loop: OnLoop, keeps: bool, encrypted: bool, certificate: Path
) -> None:
    tls = server_tls(certificate) if encrypted else None
    trust = trusted(str(certificate)) if encrypted else TRUST

    async def compare(answer: bytes) -> str | None:
        (theirs, there), (ours, here) = await asyncio.gather(
            *(what_becomes_of(name, answer, keeps=keeps, tls=tls, trust=trust) for name in ("aiohttp", "lean"))
        )
        same = here == there and all(
            (a.answer, a.response, a.sends) == (b.answer, b.response, b.sends)
            for a, b in zip(theirs, ours, strict=True)
        )
        return None if same else f"{answer[:100]!r}: {theirs[0].answer} {there}, {ours[0].answer} {here}"

    async def scenario() -> None:
        together = 16
        for start in range(0, len(ANSWERS), together):
            found = await asyncio.gather(*map(compare, ANSWERS[start : start + together]))
            assert not [difference for difference in found if difference]

    on_loop(scenario())


@pytest.mark.parametrize(
    "answer",
    [OK + b"H", b"HTTP/1.1 101 C\r\n\r\n" + OK, ok(b"Content-Length: 65537", after=b"x" * 65537)],
    ids=["a-byte-of-another", "switched-protocols", "past-the-bound"],
)
def test_the_lean_one_never_keeps_a_connection_that_said_too_much(on_loop: OnLoop, answer: bytes) -> None:
    async def scenario() -> None:
        reports, connections = await what_becomes_of("lean", answer, keeps=True)
        assert reports[1].answer.status == 200
        assert connections == 2

    on_loop(scenario())
