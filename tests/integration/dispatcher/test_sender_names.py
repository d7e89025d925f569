"""Names and headers: what is asked of the name server, what TLS is told, and what never becomes a line of its own."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.outcome import Answer, Failure
from services.dispatcher.connections import trusted
from services.dispatcher.resolving import FAILURE_KEPT_SECONDS, LOOKUPS_AT_ONCE
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import answering, once, raw_receiver
from tests.integration.dispatcher.sending import APP, BODY, FIVE_SECONDS, LOOPBACK, SenderOf, send
from tests.support.certificates import server_tls

PATIENCE_SECONDS: Final = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class NameServer:
    """In place of the system's: what it is asked, and an answer that the test can change.

    Of names in `.dead` it says nothing before the test is over, or `given_up` is set, and then that it has failed.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.asked: list[object] = []
        self.given_up = threading.Event()

    def __call__(self, host: object, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        self.asked.append(host)
        if str(host).endswith(".dead"):
            self.given_up.wait(PATIENCE_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer("127.0.0.1")
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.given_up.set()


def test_a_name_is_asked_for_once_in_ten_seconds(on_loop: OnLoop, sender: SenderOf, names: NameServer) -> None:
    async def scenario() -> None:
        async with raw_receiver(once(CLOSING)) as receiver, sender() as client:
            url = receiver.url(host="receiver.example")
            for _ in range(3):
                assert (await send(client, url)).answer == Answer(status=200)
            assert receiver.connections == 3
        assert names.asked == ["receiver.example"]

    on_loop(scenario())


def test_an_international_name_is_asked_for_as_it_is_written(
    on_loop: OnLoop, sender: SenderOf, names: NameServer
) -> None:
    """Decoded and encoded again, `xn--strae-oqa` (straße) would become `strasse`, which is somebody else's."""

    async def scenario() -> None:
        host = "xn--strae-oqa.example"
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            report = await send(client, receiver.url(host=host))
            assert report.answer == Answer(status=200)
            assert f"\r\nHost: {host}:{receiver.port}\r\n".encode() in receiver.requests[0]
        assert names.asked == [host]

    on_loop(scenario())


def test_many_who_ask_at_once_share_one_question(on_loop: OnLoop, sender: SenderOf, names: NameServer) -> None:
    async def scenario() -> None:
        async with raw_receiver(once(CLOSING)) as receiver, sender() as client:
            url = receiver.url(host="receiver.example")
            reports = await asyncio.gather(*(send(client, url) for _ in range(10)))
        assert [report.answer for report in reports] == [Answer(status=200)] * 10
        assert names.asked == ["receiver.example"]

    on_loop(scenario())


def test_dead_names_of_one_application_keep_no_other_waiting(
    on_loop: OnLoop, sender: SenderOf, names: NameServer
) -> None:
    """A lookup cannot be called off: those of attempts that have given up are under way still."""

    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            dead = [
                send(client, receiver.url(host=f"n{number}.dead"), seconds=0.3) for number in range(2 * LOOKUPS_AT_ONCE)
            ]
            reports = await asyncio.gather(*dead)
            assert {report.answer for report in reports} == {Answer(failure=Failure.TIMEOUT)}
            assert 1 < len(names.asked) <= LOOKUPS_AT_ONCE / 8
            url = receiver.url(host="receiver.example")
            assert (await send(client, url, app=UUID(int=2))).answer == Answer(status=200)

            waiting = asyncio.create_task(send(client, receiver.url(host="another.example"), seconds=PATIENCE_SECONDS))
            await asyncio.sleep(0.1)
            assert not waiting.done(), "its own names wait for each other"
            names.given_up.set()
            assert (await waiting).answer == Answer(status=200)

    on_loop(scenario())


def test_a_name_that_fails_is_not_asked_for_by_each_attempt(
    on_loop: OnLoop, sender: SenderOf, names: NameServer
) -> None:
    async def scenario() -> None:
        async with sender() as client:
            url = "http://receiver.dead/hook"
            given_up = [await send(client, url, seconds=0.2) for _ in range(4)]
            waiting = [asyncio.create_task(send(client, url)) for _ in range(2)]
            await asyncio.sleep(0.1)
            names.given_up.set()
            told = [await each for each in waiting]
            again = [await send(client, url) for _ in range(3)]
            assert names.asked == ["receiver.dead"]
            assert {report.answer for report in given_up} == {Answer(failure=Failure.TIMEOUT)}
            assert {report.answer for report in told + again} == {Answer(failure=Failure.DNS)}

    on_loop(scenario())


def test_a_name_that_failed_at_once_is_asked_for_by_the_next_retry(
    on_loop: OnLoop, sender: SenderOf, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            url = receiver.url(host="receiver.example")
            with monkeypatch.context() as failing:
                failing.setattr(socket, "getaddrinfo", lambda *_, **__: names("receiver.dead", 80))
                names.given_up.set()
                assert (await send(client, url)).answer == Answer(failure=Failure.DNS)
            await asyncio.sleep(FAILURE_KEPT_SECONDS)
            assert (await send(client, url)).answer == Answer(status=200)

    on_loop(scenario())


def test_nothing_is_connected_to_but_what_was_vetted(on_loop: OnLoop, sender: SenderOf, names: NameServer) -> None:
    """A name that answers otherwise the second time: there is no second time."""

    async def scenario() -> None:
        policy = AddressPolicy(allowed_networks=(ip_network("127.0.0.2/32"),))
        names.addresses = ("127.0.0.2",)
        async with raw_receiver(answering(OK)) as receiver, sender(policy) as client:
            report = await send(client, receiver.url(host="rebinding.example"))
        assert report.answer == Answer(failure=Failure.CONNECT), "the receiver listens on 127.0.0.1"
        assert len(names.asked) == 1
        assert receiver.connections == 0

    on_loop(scenario())


def test_an_address_that_does_not_answer_is_followed_by_the_next(
    on_loop: OnLoop, sender: SenderOf, names: NameServer
) -> None:
    async def scenario() -> None:
        names.addresses = ("127.0.0.2", "127.0.0.1")
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            report = await send(client, receiver.url(host="receiver.example"))
        assert report.answer == Answer(status=200)
        assert report.peer == f"127.0.0.1:{receiver.port}"

    on_loop(scenario())


def test_tls_asks_for_the_name_and_checks_that_the_certificate_has_it(
    on_loop: OnLoop, sender: SenderOf, names: NameServer, certificate: Path
) -> None:
    async def scenario() -> None:
        asked: list[str | None] = []
        tls = server_tls(certificate)
        tls.sni_callback = lambda _connection, name, _context: asked.append(name)
        async with (
            raw_receiver(answering(OK), tls=tls) as receiver,
            sender(LOOPBACK, trust=trusted(str(certificate))) as client,
        ):
            report = await send(client, receiver.url(scheme="https", host="receiver.example"))
        assert report.answer == Answer(failure=Failure.TLS), "the certificate is for 127.0.0.1 alone"
        assert asked == ["receiver.example"]
        assert receiver.requests == []

    on_loop(scenario())


def test_a_receiver_that_asks_for_our_certificate_gets_no_request(
    on_loop: OnLoop, sender: SenderOf, certificate: Path
) -> None:
    async def scenario() -> None:
        tls = server_tls(certificate)
        tls.verify_mode = ssl.CERT_REQUIRED
        async with (
            raw_receiver(answering(OK), tls=tls) as receiver,
            sender(LOOPBACK, trust=trusted(str(certificate))) as client,
        ):
            report = await send(client, receiver.url(scheme="https"))
        assert report.answer.failure in {Failure.TLS, Failure.RESET}
        assert receiver.requests == []

    on_loop(scenario())


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Custom": "a\r\nX-Injected: 1"},
        {"X-Custom": "a\nX-Injected: 1"},
        {"X-Custom": "a\rX-Injected: 1"},
        {"X-Custom": "a\0"},
        {"X-Custom\r\nX-Injected": "1"},
    ],
    ids=["crlf", "lf", "cr", "nul", "name"],
)
def test_a_header_never_becomes_two(on_loop: OnLoop, sender: SenderOf, headers: dict[str, str]) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            report = await client.send(receiver.url(), headers, BODY, app=APP, timeout=FIVE_SECONDS)
        assert report.answer == Answer(failure=Failure.CONFIGURATION)
        assert receiver.requests == []

    on_loop(scenario())


def test_an_endpoints_own_user_agent_replaces_ours(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            own = {"user-agent": "100% theirs", "X-Rate": "50%s", "X-Text": "a\tb \u00e9"}
            report = await client.send(receiver.url(), own, BODY, app=APP, timeout=FIVE_SECONDS)
        assert report.answer == Answer(status=200)
        lines = receiver.requests[0].partition(b"\r\n\r\n")[0].split(b"\r\n")
        assert [line for line in lines if line.lower().startswith(b"user-agent")] == [b"user-agent: 100% theirs"]
        assert {b"X-Rate: 50%s", "X-Text: a\tb \u00e9".encode(), b"Accept: */*"} <= set(lines)

    on_loop(scenario())
