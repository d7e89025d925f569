"""Through the operator's proxy: what is judged before, what the proxy is told, and who goes past it."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.egress import Egress, parse_egress
from libs.common.domain.outcome import Answer, Failure
from services.dispatcher.connections import trusted
from services.dispatcher.sender import USER_AGENT
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import RawReceiver, answering, raw_receiver
from tests.integration.dispatcher.sending import LOOPBACK, SenderOf, send
from tests.support.certificates import server_tls

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PRODUCTION = AddressPolicy()
PATIENCE_SECONDS: Final = 20.0


class Proxy:
    """An HTTP proxy that connects everything to one receiver, as if its own name server knew nothing else."""

    def __init__(self, receiver: RawReceiver | None) -> None:
        self._receiver = receiver
        self.port = 0
        self.heads: list[bytes] = []

    def egress(self, exceptions: str = "") -> Egress:
        """The way through it."""
        return parse_egress(f"http://user:s3cret@127.0.0.1:{self.port}", exceptions)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        if self._receiver is None:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            writer.close()
            return
        there, back = await asyncio.open_connection("127.0.0.1", self._receiver.port)
        if head.startswith(b"CONNECT "):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(_pipe(reader, back), _pipe(there, writer), return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def proxying(receiver: RawReceiver | None) -> AsyncIterator[Proxy]:
    proxy = Proxy(receiver)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()


def test_tls_goes_end_to_end_through_a_tunnel_and_is_used_again(
    on_loop: OnLoop, sender: SenderOf, certificate: Path
) -> None:
    async def scenario() -> None:
        async with (
            raw_receiver(answering(OK), tls=server_tls(certificate)) as receiver,
            proxying(receiver) as proxy,
            sender(LOOPBACK, egress=proxy.egress(), trust=trusted(str(certificate))) as client,
        ):
            reports = [await send(client, "https://127.0.0.1:8443/hook") for _ in range(2)]
        assert [report.answer for report in reports] == [Answer(status=200)] * 2
        assert reports[0].peer == f"127.0.0.1:{proxy.port}"
        [head] = proxy.heads
        assert head.startswith(b"CONNECT 127.0.0.1:8443 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=\r\n" in head
        assert all(b"roxy" not in request for request in receiver.requests), "the receiver hears nothing of it"
        assert f"User-Agent: {USER_AGENT}\r\n".encode() in receiver.requests[0]

    on_loop(scenario())


def test_plain_http_is_asked_of_the_proxy(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with (
            raw_receiver(answering(OK)) as receiver,
            proxying(receiver) as proxy,
            sender(LOOPBACK, egress=proxy.egress()) as client,
        ):
            report = await send(client, "http://127.0.0.1:8000/hook")
        assert report.answer == Answer(status=200)
        assert proxy.heads[0].startswith(b"POST http://127.0.0.1:8000/hook HTTP/1.1\r\n")

    on_loop(scenario())


@pytest.mark.parametrize("host", ["10.0.0.1", "[::1]", "inside.example"], ids=["literal", "six", "name"])
def test_a_receiver_that_may_not_be_connected_to_is_not_asked_of_the_proxy_either(
    on_loop: OnLoop, sender: SenderOf, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(_host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    async def scenario() -> None:
        async with proxying(None) as proxy, sender(PRODUCTION, egress=proxy.egress()) as client:
            report = await send(client, f"http://{host}/hook")
        assert report.answer == Answer(failure=Failure.ADDRESS_REFUSED)
        assert report.sends == 0
        assert proxy.heads == []

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    on_loop(scenario())


def test_a_name_that_only_the_proxy_knows_is_the_proxys_to_judge(
    on_loop: OnLoop, sender: SenderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def scenario() -> None:
        async with (
            raw_receiver(answering(OK)) as receiver,
            proxying(receiver) as proxy,
            sender(PRODUCTION, egress=proxy.egress()) as client,
        ):
            report = await send(client, "http://hooks.partner.example/hook")
        assert report.answer == Answer(status=200)

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    on_loop(scenario())


@pytest.mark.parametrize("ends", ["with an address", "in failure"])
def test_a_name_that_takes_long_to_resolve_is_not_passed_on_to_the_proxy(
    on_loop: OnLoop, sender: SenderOf, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or its own name server would decide whether it is judged: now, and by what is remembered of it."""
    answer = threading.Event()

    def resolves(_host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        answer.wait(PATIENCE_SECONDS)
        if ends == "in failure":
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    async def scenario() -> None:
        async with proxying(None) as proxy, sender(PRODUCTION, egress=proxy.egress()) as client:
            try:
                slow = await send(client, "http://slow.attacker.example/hook")
                await asyncio.sleep(0.1)  # beyond any doubt: timers may be a little early
            finally:
                answer.set()
            again = [await send(client, "http://slow.attacker.example/hook") for _ in range(2)]
        assert slow.answer == Answer(failure=Failure.DNS)
        assert slow.sends == 0
        refused = Failure.DNS if ends == "in failure" else Failure.ADDRESS_REFUSED
        assert [report.answer for report in again] == [Answer(failure=refused)] * 2
        assert proxy.heads == []

    monkeypatch.setattr("services.dispatcher.connections.VET_SECONDS", 1.0)
    monkeypatch.setattr(socket, "getaddrinfo", resolves)
    on_loop(scenario())


def test_an_international_name_is_judged_under_the_name_that_the_proxy_is_told(
    on_loop: OnLoop, sender: SenderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def answers(host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", port))]

    async def scenario() -> None:
        async with proxying(None) as proxy, sender(PRODUCTION, egress=proxy.egress()) as client:
            report = await send(client, "https://xn--strae-oqa.example/hook")
        assert report.answer == Answer(failure=Failure.ADDRESS_REFUSED)
        assert asked == ["xn--strae-oqa.example"]

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    on_loop(scenario())


def test_a_proxy_that_refuses_is_a_failed_connection_not_the_receivers_answer(
    on_loop: OnLoop, sender: SenderOf
) -> None:
    async def scenario() -> None:
        async with proxying(None) as proxy, sender(LOOPBACK, egress=proxy.egress()) as client:
            report = await send(client, "https://127.0.0.1:8443/hook")
        assert report.answer == Answer(failure=Failure.CONNECT)
        assert report.sends == 0

    on_loop(scenario())


def test_exceptions_go_past_the_proxy_and_are_vetted_where_they_are_connected_to(
    on_loop: OnLoop, sender: SenderOf
) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, proxying(receiver) as proxy:
            egress = proxy.egress("127.0.0.0/8,localhost")
            async with sender(LOOPBACK, egress=egress) as client:
                assert (await send(client, receiver.url())).answer == Answer(status=200)
            async with sender(PRODUCTION, egress=egress) as client:
                refused = await send(client, receiver.url(host="localhost"))
        assert refused.answer == Answer(failure=Failure.ADDRESS_REFUSED)
        assert proxy.heads == []

    on_loop(scenario())


def test_a_file_without_certificates_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing\n")
    with pytest.raises(ssl.SSLError):
        trusted(str(empty))
    with pytest.raises(FileNotFoundError):
        trusted(str(tmp_path / "none.pem"))
