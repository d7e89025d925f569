"""Plain requests: what is taken for one, and that nothing but its cost tells who answered."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from deploy.stack.ports import free_port
from libs.common.runtime import connection as connections
from libs.common.runtime import express_connection
from libs.common.runtime.express import MAX_HEAD_BYTES, Express, Head, recognise
from libs.common.runtime.http import ApiError, Reply, middlewares
from libs.common.runtime.listening import listening

HOST = "127.0.0.1"
PATIENCE_SECONDS = 5.0
SOON_SECONDS = 0.2


def request(*fields: str, target: str = "/", body: bytes = b"{}", start: str = "POST {} HTTP/1.1") -> bytes:
    """A request with these fields beside `Host` and `Content-Length`."""
    lines = [start.format(target), "Host: a", f"Content-Length: {len(body)}", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


PLAIN: Final = request()


# What is recognised


def test_a_plain_request_is_its_target_and_its_fields() -> None:
    head = recognise(request("X-A:  b c ", "authorization:Bearer k", target="/a/b?c=d", body=b"12345"))
    assert head is not None
    assert (head.target, head.path, head.length) == ("/a/b?c=d", "/a/b", 5)
    assert head.fields == {"host": "a", "content-length": "5", "x-a": "b c", "authorization": "Bearer k"}


def test_credentials_are_not_shown() -> None:
    assert "secret" not in repr(recognise(request("Authorization: Bearer secret", target="/?key=secret")))


@pytest.mark.parametrize(
    "data",
    [
        request("Connection: keep-alive"),
        request("Accept: */*", "User-Agent: x/1 (y; z)", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-01"),
        request(*(f"X-{n}: {n}" for n in range(60))),
        request("X-Empty:", "!#$%&'*+-.^_`|~09AZaz: every character of a name"),
    ],
)
def test_usual_fields_are_plain(data: bytes) -> None:
    assert recognise(data) is not None


ODD: Final = {
    "another method": request(start="PUT {} HTTP/1.1"),
    "a method in lower case": request(start="post {} HTTP/1.1"),
    "HTTP/1.0": request(start="POST {} HTTP/1.0"),
    "HTTP/2": request(start="POST {} HTTP/2.0"),
    "HTTP/1.10": request(start="POST {} HTTP/1.10"),
    "two spaces": request(start="POST  {} HTTP/1.1"),
    "a tab": request(start="POST\t{} HTTP/1.1"),
    "a space in the target": request(target="/a b"),
    "a target in absolute form": request(target="http://a/"),
    "a target in asterisk form": request(target="*"),
    "a target that is not ASCII": request(target="/\xe9"),
    "no target": request(target=""),
    "an empty line before": b"\r\n" + PLAIN,
    "a space before": b" " + PLAIN,
    "no host": PLAIN.replace(b"Host: a\r\n", b""),
    "no length": PLAIN.replace(b"Content-Length: 2\r\n", b""),
    "no body": PLAIN.replace(b"Content-Length: 2", b"Content-Length: 0"),
    "two lengths": request("Content-Length: 2"),
    "two lengths that differ": request("content-length: 3"),
    "a list of lengths": PLAIN.replace(b"Length: 2", b"Length: 2, 2"),
    "a signed length": PLAIN.replace(b"Length: 2", b"Length: +2"),
    "a hexadecimal length": PLAIN.replace(b"Length: 2", b"Length: 0x2"),
    "a length with a zero before": PLAIN.replace(b"Length: 2", b"Length: 02"),
    "a length in other digits": PLAIN.replace(b"Length: 2", b"Length: \xc2\xb2"),
    "an empty length": PLAIN.replace(b"Length: 2", b"Length:"),
    "an immense length": PLAIN.replace(b"Length: 2", b"Length: 99999999999999999999"),
    "chunks": request("Transfer-Encoding: chunked"),
    "chunks in capitals": request("TRANSFER-ENCODING: CHUNKED"),
    "another transfer": request("Transfer-Encoding: identity"),
    "an expectation": request("Expect: 100-continue"),
    "an encoding": request("Content-Encoding: gzip"),
    "an upgrade": request("Connection: upgrade", "Upgrade: h2c"),
    "an upgrade alone": request("Upgrade: websocket"),
    "a trailer": request("Trailer: X"),
    "a connection that closes": request("Connection: close"),
    "a connection with more": request("Connection: keep-alive, TE"),
    "a connection in other capitals": request("Connection: KEEP-ALIVE"),
    "a proxy's connection": request("Proxy-Connection: close"),
    "two authorizations": request("Authorization: Bearer a", "authorization: Bearer b"),
    "any field twice": request("X-A: 1", "x-a: 1"),
    "white space before the colon": request("X-A : b"),
    "no name": request(": b"),
    "no colon": request("X-A"),
    "a folded line": request("X-A: b", " c"),
    "a folded line with a tab": request("X-A: b", "\tc"),
    "a tab in a value": request("X-A: b\tc"),
    "a NUL in a value": request("X-A: b\0c"),
    "a NUL in a name": request("X\0A: b"),
    "a carriage return in a value": request("X-A: b\rc"),
    "a line feed alone": request("X-A: b\nX-B: c"),
    "line feeds alone": PLAIN.replace(b"\r\n", b"\n"),
    "a value that is not ASCII": request("X-A: \xe9"),
    "a name that is not ASCII": request("X\xe9: a"),
    "DEL": request("X-A: \x7f"),
    "parentheses in a name": request("X(A): b"),
    "too many fields": request(*(f"X-{n}: {n}" for n in range(63))),
    "too long a head": request("X-A: " + "b" * MAX_HEAD_BYTES),
    "half a head": PLAIN[:20],
    "nothing": b"",
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_left_to_aiohttp(name: str) -> None:
    assert recognise(ODD[name]) is None


NAMES = st.sampled_from(
    [
        b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"Authorization", b"X-A",
        b"x-a", b"X A", b"X-A ", b" X-A", b"", b"User-Agent", b"Content-Type", b"Sec-WebSocket-Key1", b"X\xe9",
    ]
)  # fmt: skip
VALUES = st.sampled_from(
    [b"a", b"", b" ", b"2", b"02", b"+2", b"2, 2", b"chunked", b"close", b"keep-alive", b"a\tb", b"\xe9", b"a" * 9000]
) | st.binary(max_size=6)
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"/a#b", b"//a", b"*", b"http://a/", b"/%2e%2e", b"/\xe9", b"/a b", b"a:1"])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n ", b"\r\r\n"])
CUTS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.binary(max_size=3)), max_size=2)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is plain, or nearly."""
    fields = [(b"Host", b"a"), (b"Content-Length", b"2"), *draw(st.lists(st.tuples(NAMES, VALUES), max_size=3))]
    lines = [b"POST %b HTTP/1.1" % draw(TARGETS), *(name + b": " + value for name, value in fields), b""]
    data = b"".join(line + draw(ENDS) for line in lines) + b"{}"
    for place, length, instead in draw(CUTS):
        data = data[:place] + instead + data[place + length :]
    return data


@given(requests())
@example(PLAIN)
@example(request("X-A:  b ", target="/a?b"))
def test_aiohttp_reads_every_plain_request_alike(data: bytes) -> None:
    head = recognise(data)
    if head is None or head.size + head.length != len(data):
        return
    [(message, payload)] = read_by_aiohttp(data)
    assert (message.method, message.path, tuple(message.version)) == ("POST", head.target, (1, 1))
    assert {name.lower(): value for name, value in message.headers.items()} == head.fields
    assert (message.should_close, message.upgrade, message.chunked, message.compression) == (False, False, False, None)
    assert payload.is_eof()
    assert payload.read_nowait(-1) == data[head.size :]


def read_by_aiohttp(data: bytes) -> list[Any]:
    """What the parser of the server makes of these bytes."""
    loop = asyncio.new_event_loop()
    try:
        messages, upgraded, tail = HttpRequestParser(
            BaseProtocol(loop), loop, 2**16, max_line_size=8190, max_field_size=8190, auto_decompress=False
        ).feed_data(data)
    finally:
        loop.close()
    assert (upgraded, tail) == (False, b"")
    return list(messages)


# Who answers


class Asked(Struct):
    """A request that was taken; the test says what becomes of it."""

    body: bytes
    future: "asyncio.Future[Reply | None]"

    def reply(self) -> Reply | None:
        """What the test said."""
        return self.future.result()

    def say(self, outcome: Reply | Exception | None) -> None:
        """What becomes of it."""
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class AwayError(Exception):
    """A server behind this one does not answer."""


class Service:
    """A service that gives the same replies by aiohttp and by itself.

    Attributes:
        asked: requests that were taken.
        whole_way: bodies of requests that aiohttp read.
        outcome: of each request, at once; None: the test says it of each that is taken.
    """

    def __init__(self, outcome: Callable[[bytes], Reply] | None = None, *, takes: bool = True) -> None:
        self.port = free_port()
        self.asked: asyncio.Queue[Asked] = asyncio.Queue()
        self.whole_way: list[bytes] = []
        self._outcome = outcome
        self._takes = takes

    def take(self, head: Head, body: bytes) -> Asked | None:
        if not self._takes or head.path != "/":
            return None
        asked = Asked(body, asyncio.get_running_loop().create_future())
        if self._outcome is None:
            self.asked.put_nowait(asked)
        else:
            try:
                asked.say(self._outcome(body))
            except Exception as error:  # noqa: BLE001  the test's own
                asked.say(error)
        return asked

    async def handle(self, request: web.Request) -> web.Response:
        self.whole_way.append(body := await request.read())
        reply = ok(body) if self._outcome is None else self._outcome(body)
        return reply.response()

    @asynccontextmanager
    async def running(self, *, grace: float = 0.0) -> AsyncIterator["Service"]:
        app = web.Application(middlewares=middlewares((AwayError,)))
        app.router.add_route("*", "/{rest:.*}", self.handle)
        express = Express(take=self.take, unavailable_on=(AwayError,))
        async with listening(app, HOST, self.port, grace=grace, express=express):
            yield self


class Client:
    """A bare connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def answer(self) -> tuple[str, bytes]:
        """The head and the body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        [length] = re.findall(r"Content-Length: (\d+)", head)
        return head, await self.reader.readexactly(int(length))

    async def ask(self, data: bytes) -> tuple[str, bytes]:
        """Send, and read the answer."""
        self.writer.write(data)
        return await self.answer()


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection(HOST, service.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
        try:
            yield Client(reader, writer)
        finally:
            writer.close()


def ok(body: bytes) -> Reply:
    """A success that says what came."""
    return Reply(status=202, body=b'{"got":%d}' % len(body))


def refuse(error: Exception) -> Callable[[bytes], Reply]:
    """An outcome that raises."""

    def outcome(_: bytes) -> Reply:
        raise error

    return outcome


@pytest.mark.parametrize(
    "outcome",
    [
        ok,
        lambda _: Reply(status=202, body=b"{}", headers={"Idempotent-Replayed": "true"}),
        refuse(ApiError(409, "used")),
        refuse(ApiError(422, [{"loc": ["body"], "msg": "é", "type": "x"}])),
        refuse(ApiError(429, "too many", headers={"Retry-After": "7"})),
        refuse(AwayError("gone")),
        refuse(RuntimeError("a fault of ours")),
    ],
)
async def test_both_ways_answer_alike(outcome: Callable[[bytes], Reply]) -> None:
    assert await answer(outcome, takes=True) == await answer(outcome, takes=False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], ""),
        (["X-Request-Id: mine-1"], "mine-1"),
        (["X-Request-Id:  a b ", "Connection: keep-alive"], "a b"),
        (["X-Request-Id: " + "a" * 129], ""),
    ],
)
async def test_both_ways_name_the_request_alike(fields: list[str], said: str) -> None:
    express, whole_way = [await answer(ok, *fields, takes=takes) for takes in (True, False)]
    assert express == whole_way
    assert f"X-Request-Id{': ' if said else ''}{said}\r\n" in express[0]


async def answer(outcome: Callable[[bytes], Reply], *fields: str, takes: bool) -> tuple[str, bytes]:
    """The answer by one of the two ways, without what differs from answer to answer."""
    async with Service(outcome, takes=takes).running() as service, connected(service) as client:
        head, body = await client.ask(request(*fields))
    assert bool(service.whole_way) is not takes
    return without_chance(head), body


def without_chance(head: str) -> str:
    """A head without what differs from answer to answer."""
    head = re.sub(r"(?m)^Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r$", "Date\r", head)
    return re.sub(r"(?m)^X-Request-Id: [0-9a-f]{32}-\d+\r$", "X-Request-Id\r", head)


async def test_what_is_not_taken_goes_the_whole_way() -> None:
    async with Service(ok).running() as service, connected(service) as client:
        for data in (request(target="/other"), request("TE: trailers"), PLAIN):
            assert (await client.ask(data))[1] == b'{"got":2}'
        assert service.whole_way == [b"{}", b"{}", b"{}"], "behind what is not plain, nothing is taken"


async def test_a_request_may_come_in_any_two_pieces() -> None:
    data = request("X-A: b", body=b'{"a":1}')
    async with Service(ok).running() as service:
        for cut in range(1, len(data)):
            async with connected(service) as client:
                client.writer.write(data[:cut])
                await client.writer.drain()
                await asyncio.sleep(0)
                assert (await client.ask(data[cut:]))[1] == b'{"got":7}'


async def test_a_body_may_come_in_behind_its_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(express_connection, "BODY_SECONDS", PATIENCE_SECONDS)  # however busy the machine is
    data = request(body=b"x" * 30_000)
    async with Service(ok).running() as service, connected(service) as client:
        client.writer.write(data[:-29_000])
        await turns()
        client.writer.write(data[-29_000:-10])
        await turns()
        assert (await client.ask(data[-10:]))[1] == b'{"got":30000}'
        assert service.whole_way == []


async def test_a_body_that_takes_long_goes_the_whole_way_and_the_next_request_is_taken_again() -> None:
    async with Service(ok).running() as service, connected(service) as client:
        client.writer.write(PLAIN[:-1])
        await asyncio.sleep(SOON_SECONDS)
        assert (await client.ask(PLAIN[-1:]))[1] == b'{"got":2}'
        assert (await client.ask(request(body=b"123")))[1] == b'{"got":3}'
        assert service.whole_way == [b"{}"]


async def test_a_client_that_hangs_up_in_the_middle_of_a_body_leaves_nothing_behind() -> None:
    async with asyncio.timeout(PATIENCE_SECONDS), Service(ok).running(grace=3600) as service:
        async with connected(service) as client:
            client.writer.write(PLAIN[:-1])
            await turns()
        await asyncio.sleep(SOON_SECONDS)
    assert service.whole_way == []


async def test_a_stop_waits_for_a_body_that_has_begun() -> None:
    service = Service(ok)
    async with service.running(grace=3600):
        client = await opened(service)
        client.writer.write(PLAIN[:-1])
        await turns()
        asyncio.get_running_loop().call_later(SOON_SECONDS, client.writer.write, PLAIN[-1:])
    head, body = await client.answer()
    assert body == b'{"got":2}'
    assert "Connection: close\r\n" in head
    client.writer.close()


async def turns() -> None:
    """Let what was sent come in by itself, and be looked at."""
    await asyncio.sleep(0.005)


async def test_requests_behind_one_another_are_answered_in_their_order() -> None:
    bodies = [b"1", b"12", b"123", b"1234"]
    async with Service(ok).running() as service, connected(service) as client:
        client.writer.write(b"".join(request(body=body) for body in bodies))
        assert [(await client.answer())[1] for _ in bodies] == [b'{"got":%d}' % len(body) for body in bodies]
        assert service.whole_way == bodies


async def test_what_comes_in_behind_a_request_under_way_waits_for_its_answer() -> None:
    async with Service().running() as service, connected(service) as client:
        client.writer.write(request(body=b"1"))
        first = await service.asked.get()
        client.writer.write(request(body=b"12"))
        await asyncio.sleep(SOON_SECONDS)
        client.writer.write(request(body=b"123")[:30])
        await asyncio.sleep(SOON_SECONDS)
        assert service.asked.empty()
        first.say(ok(first.body))
        assert (await client.answer())[1] == b'{"got":1}'
        second = await service.asked.get()
        second.say(ok(second.body))
        assert (await client.answer())[1] == b'{"got":2}'
        assert (await client.ask(request(body=b"123")[30:]))[1] == b'{"got":3}'
        assert service.whole_way == [b"123"]


async def test_what_comes_in_behind_a_request_under_way_is_not_read_without_end() -> None:
    async with Service().running() as service, connected(service) as client:
        client.writer.write(PLAIN)
        await service.asked.get()
        client.writer.write(bytes(64 * 1024 * 1024))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.writer.drain(), SOON_SECONDS)
        client.writer.transport.abort()


HALF: Final = b"GET /behind HTTP/1.1\r\nX-Hidden: "


@pytest.mark.parametrize(
    "pieces", [[request("TE: trailers") + HALF], [PLAIN + HALF], [PLAIN[:-1], PLAIN[-1:] + HALF], [HALF]]
)
async def test_half_a_request_behind_another_is_not_the_beginning_of_what_follows(pieces: list[bytes]) -> None:
    """Or a client could hide a request in another's header: one server would see it, the next would not."""
    async with Service().running() as service, connected(service) as client:
        for piece in pieces:
            client.writer.write(piece)
            await asyncio.sleep(SOON_SECONDS)
        for _ in range(len(pieces[-1]) > len(HALF)):
            assert (await client.answer())[1] == b'{"got":2}'
        head, body = await client.ask(PLAIN)
        assert (head[:12], body) == ("HTTP/1.1 202", b'{"got":2}')
        assert service.asked.empty()


async def test_a_client_that_hangs_up_hears_nothing_and_harms_nobody() -> None:
    async with Service().running() as service:
        async with connected(service) as client:
            client.writer.write(PLAIN)
            asked = await service.asked.get()
        await asyncio.sleep(SOON_SECONDS)
        asked.say(ok(asked.body))
        async with connected(service) as client:
            client.writer.write(PLAIN)
            asked = await service.asked.get()
            asked.say(ok(asked.body))
            assert (await client.answer())[1] == b'{"got":2}'


async def test_nothing_came_of_it_so_it_goes_the_whole_way_before_what_is_behind_it() -> None:
    async with Service().running() as service, connected(service) as client:
        client.writer.write(request(body=b"1"))
        asked = await service.asked.get()
        client.writer.write(request(body=b"12"))
        await asyncio.sleep(SOON_SECONDS)
        asked.say(None)
        assert [(await client.answer())[1] for _ in range(2)] == [b'{"got":1}', b'{"got":2}']
        assert service.whole_way == [b"1", b"12"]


async def test_a_fault_before_it_is_taken_is_logged_and_it_goes_the_whole_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = Service(ok)
    monkeypatch.setattr(service, "take", lambda *_: refuse(RuntimeError("a fault of ours"))(b""))
    async with service.running(), connected(service) as client:
        assert (await client.ask(PLAIN))[1] == b'{"got":2}'
    assert "http.express_failed" in "".join(capsys.readouterr())


# How it ends


async def test_a_stop_waits_for_the_answer_of_a_request_under_way() -> None:
    service = Service()
    async with service.running(grace=3600):
        client = await opened(service)
        client.writer.write(PLAIN)
        asked = await service.asked.get()
        asyncio.get_running_loop().call_later(SOON_SECONDS, asked.say, ok(asked.body))
    head, body = await client.answer()
    assert body == b'{"got":2}'
    assert "Connection: close\r\n" in head
    assert await client.reader.read() == b""
    client.writer.close()


async def test_a_request_that_does_not_end_is_cut_off_after_its_grace() -> None:
    service = Service()
    async with service.running(grace=0.05):
        client = await opened(service)
        client.writer.write(PLAIN)
        asked = await service.asked.get()
    assert await client.reader.read() == b""
    asked.say(ok(asked.body))
    client.writer.close()


async def test_without_an_outcome_the_connection_is_closed_without_an_answer() -> None:
    async with Service().running() as service, connected(service) as client:
        client.writer.write(PLAIN)
        (await service.asked.get()).future.cancel()
        assert await client.reader.read() == b""


async def test_a_long_request_outlives_the_time_for_which_an_idle_connection_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "KEEPALIVE_SECONDS", SOON_SECONDS)
    async with Service().running() as service, connected(service) as client:
        client.writer.write(PLAIN)
        asked = await service.asked.get()
        await asyncio.sleep(3 * SOON_SECONDS)
        asked.say(ok(asked.body))
        assert (await client.answer())[1] == b'{"got":2}'
        assert await client.reader.read() == b"", "and then it is idle"


async def opened(service: Service) -> Client:
    return Client(*await asyncio.open_connection(HOST, service.port))
