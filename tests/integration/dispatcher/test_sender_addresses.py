"""Where may be connected to, and with whom TLS is spoken."""

import asyncio
import datetime as dt
import socket
import ssl
from ipaddress import ip_network
from pathlib import Path

import pytest

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.outcome import Answer, Failure
from services.dispatcher.connections import trusted
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, answering, raw_receiver
from tests.integration.dispatcher.sending import SenderOf, send
from tests.support.certificates import server_tls

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PRODUCTION = AddressPolicy()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"], ids=["literal", "name", "mapped"])
def test_in_production_nothing_of_our_own_is_connected_to(on_loop: OnLoop, sender: SenderOf, host: str) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender(PRODUCTION) as client:
            report = await send(client, receiver.url(host=host))
        assert report.answer == Answer(failure=Failure.ADDRESS_REFUSED)
        assert report.sends == 0
        assert receiver.connections == 0

    on_loop(scenario())


def test_a_network_that_the_operator_allows_is_connected_to(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        allowed = AddressPolicy(allowed_networks=(ip_network("127.0.0.1/32"),))
        async with raw_receiver(answering(OK)) as receiver, sender(allowed) as client:
            report = await send(client, receiver.url())
        assert report.answer == Answer(status=200)

    on_loop(scenario())


def test_one_bad_address_refuses_the_name_although_another_would_do(
    on_loop: OnLoop, sender: SenderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another party's server is replaced, its name server: no test asks a real one."""

    def answers(_host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("127.0.0.1", "10.0.0.1")]

    async def scenario() -> None:
        allowed = AddressPolicy(allowed_networks=(ip_network("127.0.0.1/32"),))
        async with raw_receiver(answering(OK)) as receiver, sender(allowed) as client:
            report = await send(client, receiver.url(host="mixed.example"))
        assert report.answer == Answer(failure=Failure.ADDRESS_REFUSED)
        assert receiver.connections == 0

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    on_loop(scenario())


def test_a_name_that_does_not_resolve_is_a_dns_failure(
    on_loop: OnLoop, sender: SenderOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def scenario() -> None:
        async with sender(PRODUCTION) as client:
            report = await send(client, "https://nowhere.example/hook")
        assert report.answer == Answer(failure=Failure.DNS)
        assert report.sends == 0

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    on_loop(scenario())


def test_a_port_where_nobody_listens_is_a_failed_connection(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        with socket.socket() as unheard:
            unheard.bind(("127.0.0.1", 0))
            async with sender() as client:
                report = await send(client, f"http://127.0.0.1:{unheard.getsockname()[1]}/")
        assert report.answer == Answer(failure=Failure.CONNECT)
        assert report.sends == 0

    on_loop(scenario())


def test_a_certificate_that_nobody_vouches_for_is_refused(on_loop: OnLoop, sender: SenderOf, certificate: Path) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK), tls=server_tls(certificate)) as receiver, sender() as client:
            report = await send(client, receiver.url(scheme="https"))
        assert report.answer == Answer(failure=Failure.TLS)
        assert report.sends == 0
        assert receiver.requests == []

    on_loop(scenario())


def test_what_is_not_tls_at_all_is_a_tls_failure(on_loop: OnLoop, sender: SenderOf) -> None:
    def converse(_receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
            await reader.read(10)
            writer.write(b"HTTP/1.1 400 This is plain HTTP\r\n\r\n")
            await writer.drain()

        return conversation

    async def scenario() -> None:
        async with raw_receiver(converse) as receiver, sender() as client:
            report = await send(client, receiver.url(scheme="https"))
        assert report.answer == Answer(failure=Failure.TLS)
        assert report.sends == 0

    on_loop(scenario())


def test_tls_below_1_2_is_refused(
    on_loop: OnLoop, sender: SenderOf, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        old = server_tls(certificate)
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        async with raw_receiver(answering(OK), tls=old) as receiver, sender(trust=trusted()) as client:
            report = await send(client, receiver.url(scheme="https"))
        assert report.answer == Answer(failure=Failure.TLS)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    on_loop(scenario())


def test_a_certificate_that_is_trusted_is_spoken_with_and_timed(
    on_loop: OnLoop, sender: SenderOf, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        tls = server_tls(certificate)
        async with raw_receiver(answering(OK), tls=tls) as receiver, sender(trust=trusted()) as client:
            first = await send(client, receiver.url(scheme="https"))
            second = await send(client, receiver.url(scheme="https"))
        assert (first.answer, second.answer) == (Answer(status=200), Answer(status=200))
        assert receiver.connections == 1
        timings = first.timings
        assert timings.connect is not None
        assert timings.tls is not None
        assert timings.first_byte is not None
        assert dt.timedelta(0) < timings.connect + timings.tls <= timings.first_byte <= timings.total
        assert second.timings.tls is None

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    on_loop(scenario())
