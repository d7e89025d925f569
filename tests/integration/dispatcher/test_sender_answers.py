"""What is sent, byte for byte, and what is kept of the answer."""

import asyncio
from datetime import timedelta

import pytest

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.outcome import Answer, Outcome, classify
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import answering, once, raw_receiver
from tests.integration.dispatcher.sending import BODY, SenderOf, send

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_the_exact_bytes_and_the_given_content_type_arrive(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            report = await send(client, receiver.url("/hook?token=1%2B2"))
        head, _, body = receiver.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /hook?token=1%2B2 HTTP/1.1"
        assert b"Content-Type: application/json" in lines
        assert b"webhook-id: msg_1" in lines
        assert not [line for line in lines if line.lower().startswith((b"accept-encoding", b"cookie", b"expect"))]
        assert body == BODY
        assert report.answer == Answer(status=200)
        assert (report.response, report.sends) == (b"ok", 1)

    on_loop(scenario())


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 70\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"ok"),
    ],
    ids=["empty", "204", "304", "closing", "chunked", "until-closed", "after-1xx"],
)
def test_every_legal_form_of_answer_is_read_and_its_peer_recorded(
    on_loop: OnLoop, sender: SenderOf, answer: bytes, kept: bytes
) -> None:
    async def scenario() -> None:
        async with raw_receiver(once(answer)) as receiver, sender() as client:
            report = await send(client, receiver.url())
        assert report.answer.failure is None
        assert report.response == kept
        assert report.peer == f"127.0.0.1:{receiver.port}"

    on_loop(scenario())


def test_a_redirect_is_an_answer_and_is_never_followed(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as elsewhere:
            moved = b"HTTP/1.1 307 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % elsewhere.url().encode()
            async with raw_receiver(answering(moved)) as receiver, sender() as client:
                report = await send(client, receiver.url())
        assert report.answer.status == 307
        assert classify(report.answer) is Outcome.RETRYABLE
        assert elsewhere.connections == 0

    on_loop(scenario())


def test_cookies_are_not_kept(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        given = b"HTTP/1.1 200 OK\r\nSet-Cookie: session=1; Path=/\r\nContent-Length: 0\r\n\r\n"
        async with raw_receiver(answering(given)) as receiver, sender() as client:
            await send(client, receiver.url())
            await send(client, receiver.url())
        assert b"cookie" not in receiver.requests[1].lower()

    on_loop(scenario())


@pytest.mark.parametrize(
    ("status", "value", "wait"),
    [
        ("503 Busy", "120", timedelta(seconds=120)),
        ("429 Slow", "0", timedelta(0)),
        ("503 Busy", "soon", None),
        ("500 Oops", "120", None),
    ],
)
def test_retry_after_is_read_where_the_status_may_ask(
    on_loop: OnLoop, sender: SenderOf, status: str, value: str, wait: timedelta | None
) -> None:
    async def scenario() -> None:
        answer = f"HTTP/1.1 {status}\r\nRetry-After: {value}\r\nContent-Length: 0\r\n\r\n".encode()
        async with raw_receiver(answering(answer)) as receiver, sender() as client:
            report = await send(client, receiver.url())
        assert report.answer.status == int(status[:3])
        assert report.answer.retry_after == wait

    on_loop(scenario())


def test_a_connection_is_used_again_and_the_timings_say_so(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            first = (await send(client, receiver.url())).timings
            second = (await send(client, receiver.url())).timings
        assert receiver.connections == 1
        assert first.connect is not None
        assert first.first_byte is not None
        assert timedelta(0) <= first.connect <= first.first_byte <= first.total
        assert (first.dns, first.tls) == (None, None)  # a literal address, without TLS
        assert second.connect is None
        assert second.first_byte is not None

    on_loop(scenario())


def test_a_name_takes_time_to_resolve_before_it_takes_time_to_connect(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender(AddressPolicy(development=True)) as client:
            timings = (await send(client, receiver.url(host="localhost"))).timings
        assert timings.dns is not None
        assert timings.connect is not None
        assert timings.first_byte is not None
        assert timedelta(0) < timings.dns + timings.connect <= timings.first_byte <= timings.total

    on_loop(scenario())


def test_a_hundred_sends_at_once_share_nothing(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answering(OK)) as receiver, sender() as client:
            reports = await asyncio.gather(
                *(send(client, receiver.url(f"/{n}"), body=b'{"n":%d}' % n) for n in range(100))
            )
        assert [report.answer.status for report in reports] == [200] * 100
        bodies = {request.split()[1]: request.partition(b"\r\n\r\n")[2] for request in receiver.requests}
        assert bodies == {b"/%d" % n: b'{"n":%d}' % n for n in range(100)}

    on_loop(scenario())
