"""The lean HTTP client's parts: heads that cannot be split, answers in any pieces, deadlines, and kept connections."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from httptools import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from libs.common.runtime import clock
from libs.common.runtime.http_client import pool as pool_module
from libs.common.runtime.http_client.connection import (
    Bounds,
    Connection,
    ConnectionEndedError,
    MalformedAnswerError,
)
from libs.common.runtime.http_client.deadlines import Deadlines
from libs.common.runtime.http_client.heads import request, request_line
from libs.common.runtime.http_client.pool import Origin, Pool

LINES = request_line("POST", "/hook?a=1%2B2", "receiver.example:8443")
DEFAULTS = (("User-Agent", "Hookledger/1"), ("Accept", "*/*"))
BOUNDS = Bounds(read_bytes=1000, kept_bytes=10, head_bytes=2000, fields=10, field_bytes=100)
OK = b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 2\r\n\r\nok"
names = st.text(st.sampled_from("abcXYZ019-_%$!"), min_size=1, max_size=12)
values = st.text(st.one_of(st.characters(max_codepoint=0x17F), st.sampled_from("\r\n\0\t %:")), max_size=30)


class Seen:
    """What a server's parser makes of a request."""

    def __init__(self, data: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.ended = 0
        self.parser = HttpRequestParser(self)
        self.parser.feed_data(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_body(self, piece: bytes) -> None:
        self.body += piece

    def on_message_complete(self) -> None:
        self.ended += 1


@given(headers=st.dictionaries(names, values, max_size=6), body=st.binary(max_size=50))
def test_a_server_reads_exactly_the_headers_and_the_body_that_were_given(headers: dict[str, str], body: bytes) -> None:
    try:
        sent = request(LINES, headers, body, DEFAULTS)
    except ValueError:
        controls = {chr(code) for code in range(32)} - {"\t"} | {"\x7f"}
        ours = {"host", "te"}
        assert controls & set("".join(headers.values())) or ours & {name.lower() for name in headers}
        return
    seen = Seen(sent)
    assert seen.ended == 1
    assert seen.body == body
    given_too = [(name.encode(), value.encode().strip(b" \t")) for name, value in headers.items()]
    assert [(name, value.rstrip(b" \t")) for name, value in seen.fields[3:-1]] == given_too
    assert seen.fields[-1] == (b"Content-Length", str(len(body)).encode())


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "CONNECTION", "", "a b", "a:", "é", "a\n"]
)
def test_a_name_that_is_none_or_the_clients_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header's name"):
        request(LINES, {name: "1"}, b"", ())


@pytest.mark.parametrize("target", ["", "hook", "/a b", "/a\r\nX: 1", "/\n", "/é", "http://elsewhere.example/"])
def test_a_target_is_one_word(target: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        request_line("POST", target, "receiver.example")


@pytest.mark.parametrize("authority", ["", "a b", "a\r\nX: 1", "a/b"])
def test_so_is_a_host(authority: str) -> None:
    with pytest.raises(ValueError, match="printable ASCII"):
        request_line("POST", "/", authority)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, socket.socket]]:
    """A connection, and the other end of it."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        _, connection = await loop.create_connection(lambda: Connection(BOUNDS, loop), sock=ours)
        yield connection, theirs
        connection.abort()


@pytest.mark.parametrize("at", range(1, len(OK)))
async def test_an_answer_in_any_two_pieces_is_the_same_answer(at: int) -> None:
    async with connected() as (connection, theirs):
        answer = connection.ask(b"?")
        theirs.sendall(OK[:at])
        await asyncio.sleep(0)
        theirs.sendall(OK[at:])
        await answer
        assert (connection.status, connection.body) == (200, b"ok")
        assert connection.fields == [(b"X", b"1"), (b"Content-Length", b"2")]
        assert connection.reusable


async def test_an_exchange_leaves_nothing_behind_for_the_next() -> None:
    async with connected() as (connection, theirs):
        for said, status, body in [
            (b"HTTP/1.1 500 No\r\nRetry-After: 1\r\nContent-Length: 3\r\n\r\nabc", 500, b"abc"),
            (b"HTTP/1.1 204 No\r\n\r\n", 204, b""),
        ]:
            answer = connection.ask(b"?")
            theirs.sendall(said)
            await answer
            assert (connection.status, bytes(connection.body)) == (status, body)
        assert connection.fields == []


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 000 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 3000,
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 11 + b"\r\n",
        b"HTTP/1.1 200 " + b"O" * 101 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 20_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"T: 1\r\n" * 10 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"x" * 20_000,
    ],
    ids=[
        "status-0",
        "status-99",
        "endless-head",
        "field",
        "fields",
        "reason",
        "extension",
        "trailers",
        "endless-trailer",
    ],
)
async def test_every_part_of_an_answer_has_its_bounds(answer: bytes) -> None:
    async with connected() as (connection, theirs):
        answered = connection.ask(b"?")
        theirs.sendall(answer)
        with pytest.raises(MalformedAnswerError):
            await answered
        assert connection.closed


async def test_whoever_waits_on_a_connection_that_is_aborted_is_told() -> None:
    async with connected() as (connection, _):
        answer = connection.ask(b"?")
        connection.abort()
        with pytest.raises(ConnectionEndedError):
            await answer
        assert connection.heard_at is None


async def test_deadlines_come_in_their_order_by_one_timer() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    now = loop.time()
    late, soon, kept = loop.create_future(), loop.create_future(), loop.create_future()
    deadlines.watch(late, now + 0.06)
    deadlines.watch(soon, now + 0.02)
    deadlines.watch(kept, now + 60)
    with pytest.raises(TimeoutError):
        await soon
    assert not late.done()
    with pytest.raises(TimeoutError):
        await late
    assert 0.055 <= loop.time() - now < 5
    assert not kept.done()
    for future in (late, soon, kept):
        deadlines.forget(future)
    deadlines.close()


async def test_what_is_over_before_its_time_is_left_alone() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(loop)
    over, late = loop.create_future(), loop.create_future()
    deadlines.watch(over, loop.time() + 0.01)
    deadlines.watch(late, loop.time() + 0.03)
    over.set_result(None)
    with pytest.raises(TimeoutError):
        await late
    assert over.result() is None
    deadlines.close()


async def exchange(pool: Pool, origin: Origin, connection: Connection, theirs: socket.socket) -> None:
    """One answer, and back into the pool."""
    answer = connection.ask(b"?")
    theirs.sendall(OK)
    await answer
    pool.give_back(origin, connection)


async def test_a_connection_idle_for_too_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(30.0, 100, asyncio.get_running_loop())
    origin = pool.origin("receiver.example", 443, tls=True)
    async with connected() as (connection, theirs):
        await exchange(pool, origin, connection, theirs)
        assert pool.take(origin) is connection
        assert pool.take(origin) is None
        await exchange(pool, origin, connection, theirs)
        later = clock.monotonic() + 30
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        assert pool.take(origin) is None
        assert connection.closed
    pool.close()


async def test_the_sweep_closes_what_is_old_and_keeps_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(30.0, 100, asyncio.get_running_loop())
    origin = pool.origin("receiver.example", 443, tls=True)
    async with connected() as (old, old_end), connected() as (young, young_end):
        await exchange(pool, origin, old, old_end)
        later = clock.monotonic() + 20
        monkeypatch.setattr(clock, "monotonic", lambda: later)
        await exchange(pool, origin, young, young_end)
        monkeypatch.setattr(clock, "monotonic", lambda: later + 15)
        pool._sweep()
        assert (old.closed, young.closed) == (True, False)
        assert pool.take(origin) is young
    pool.close()


async def test_of_too_many_idle_connections_those_that_were_used_last_stay() -> None:
    pool = Pool(30.0, 3, asyncio.get_running_loop())
    origins = [pool.origin(f"{name}.example", 443, tls=True) for name in "abcd"]
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected()) for _ in origins]
        for origin, (connection, theirs) in zip(origins, opened, strict=True):
            await exchange(pool, origin, connection, theirs)
        assert [connection.closed for connection, _ in opened] == [True, True, False, False]
        assert [pool.take(origin) is not None for origin in origins] == [False, False, True, True]
    pool.close()


async def test_of_any_number_of_connections_those_that_have_ended_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "_HEARD_AT_FIRST", 2)
    pool = Pool(30.0, 100, asyncio.get_running_loop())
    origin = pool.origin("receiver.example", 443, tls=True)
    async with AsyncExitStack() as stack:
        opened = [await stack.enter_async_context(connected()) for _ in range(8)]
        for connection, theirs in opened:
            await exchange(pool, origin, connection, theirs)
        for _, theirs in opened[1:]:
            theirs.shutdown(socket.SHUT_RDWR)  # and the loop has not heard of it
        assert pool.take(origin) is opened[0][0]
        assert pool.take(origin) is None
    pool.close()


async def test_a_connection_that_is_about_to_close_is_not_used_again() -> None:
    """As under TLS, where the socket is closed a turn before anybody is told."""
    pool = Pool(30.0, 100, asyncio.get_running_loop())
    origin = pool.origin("receiver.example", 443, tls=True)
    async with connected() as (connection, theirs):
        await exchange(pool, origin, connection, theirs)
        connection._transport.close()
        assert not connection.closed
        assert pool.take(origin) is None
    pool.close()


async def test_what_comes_back_to_a_closed_pool_is_closed() -> None:
    pool = Pool(30.0, 100, asyncio.get_running_loop())
    origin = pool.origin("receiver.example", 443, tls=True)
    async with connected() as (connection, theirs):
        answer = connection.ask(b"?")
        theirs.sendall(OK)
        await answer
        pool.close()
        pool.give_back(origin, connection)
        assert connection.closed


async def test_one_origin_is_one_whoever_asks_and_schemes_never_share() -> None:
    pool = Pool(30.0, 100, asyncio.get_running_loop())
    origin = pool.origin("receiver.example", 443, tls=True)
    assert pool.origin("receiver.example", 443, tls=True) is origin
    assert pool.origin("receiver.example", 443, tls=False) is not origin
    assert pool.origin("receiver.example", 444, tls=True) is not origin
