"""What a receiver may do, and the bound (SECURITY: "What a receiver may do, and the bound")."""

import asyncio
import gzip
import socket
import struct
from time import monotonic

import pytest

from libs.common.domain.outcome import Answer, Failure
from services.dispatcher.sender import KEPT_BYTES
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, dripping, once, raw_receiver
from tests.integration.dispatcher.sending import SenderOf, send


@pytest.mark.parametrize(
    ("beginning", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n" * 100),
    ],
    ids=["headers", "body", "chunks", "endless-100", "flood-of-102"],
)
def test_a_receiver_that_drips_is_left_at_the_total_deadline(
    on_loop: OnLoop, sender: SenderOf, beginning: bytes, drop: bytes
) -> None:
    async def scenario() -> None:
        async with raw_receiver(dripping(beginning, drop, every=0.02)) as receiver, sender() as client:
            began = monotonic()
            report = await send(client, receiver.url(), seconds=0.3)
            took = monotonic() - began
        assert report.answer == Answer(failure=Failure.TIMEOUT)
        assert report.sends == 1
        assert 0.29 <= took < 5

    on_loop(scenario())


def test_a_receiver_that_never_answers_is_left_at_the_total_deadline(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(dripping(b"", b"", every=0.05)) as receiver, sender() as client:
            report = await send(client, receiver.url(), seconds=0.3)
        assert report.answer == Answer(failure=Failure.TIMEOUT)

    on_loop(scenario())


@pytest.mark.parametrize(
    "beginning",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3B9ACA00\r\n",
    ],
    ids=["until-closed", "declared", "chunked"],
)
def test_of_an_endless_body_the_first_16_kib_are_kept_and_the_connection_is_closed(
    on_loop: OnLoop, sender: SenderOf, beginning: bytes
) -> None:
    async def scenario() -> None:
        pushed, hung_up = 0, asyncio.Event()

        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
                nonlocal pushed
                await receiver.read_request(reader)
                writer.write(beginning)
                try:
                    while True:
                        writer.write(b"0123456789abcdef" * 64)
                        await writer.drain()
                        pushed += 1024
                finally:
                    hung_up.set()

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            report = await send(client, receiver.url())
            async with asyncio.timeout(5):
                await hung_up.wait()
        assert report.answer == Answer(status=200)
        assert report.response == b"0123456789abcdef" * (KEPT_BYTES // 16)
        assert pushed < 16 * 1024 * 1024  # what the kernel's buffers took, not what we read

    on_loop(scenario())


def test_a_gzip_bomb_is_never_decompressed(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        bomb = gzip.compress(bytes(10_000_000))
        answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb) + bomb
        async with raw_receiver(once(answer)) as receiver, sender() as client:
            report = await send(client, receiver.url())
        assert report.answer == Answer(status=200)
        assert report.response == bomb[:KEPT_BYTES]

    on_loop(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 -1 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: 1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"Content-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=[
        "no-http", "status-of-4-digits", "negative-status", "space-in-a-name", "nul", "long-header", "many-headers",
        "two-lengths", "negative-length", "length-and-chunks", "bad-chunk-size", "long-chunk", "negative-chunk",
        "upgrade-unasked",
    ],
)  # fmt: skip
def test_an_answer_that_is_not_http_is_a_protocol_error_and_never_a_status(
    on_loop: OnLoop, sender: SenderOf, answer: bytes
) -> None:
    async def scenario() -> None:
        async with raw_receiver(once(answer)) as receiver, sender() as client:
            report = await send(client, receiver.url())
        assert report.answer == Answer(failure=Failure.PROTOCOL)
        assert report.sends == 1

    on_loop(scenario())


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhal",
    ],
    ids=["before-the-answer", "in-the-head", "in-the-body", "in-a-chunk"],
)
@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed-early"])
def test_a_connection_that_ends_early_is_a_reset_and_never_a_status(
    on_loop: OnLoop, sender: SenderOf, beginning: bytes, reset: bool
) -> None:
    async def scenario() -> None:
        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
                await receiver.read_request(reader)
                writer.write(beginning)
                await writer.drain()
                if reset:
                    await asyncio.sleep(0.02)  # or the reset would overtake the bytes
                    connection = writer.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            report = await send(client, receiver.url())
        assert report.answer == Answer(failure=Failure.RESET)
        assert report.sends == 1

    on_loop(scenario())


def test_a_receiver_that_answers_before_it_has_read_the_body_is_believed(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        def converse(_receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                await writer.drain()
                await reader.read()

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            report = await send(client, receiver.url(), body=b"x" * 1_000_000)
        assert report.answer == Answer(status=413)

    on_loop(scenario())


def test_a_receiver_that_stops_reading_is_left_at_the_total_deadline(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        def converse(_receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, _: asyncio.StreamWriter, _number: int) -> None:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.Event().wait()

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            report = await send(client, receiver.url(), body=b"x" * 20_000_000, seconds=0.5)
        assert report.answer == Answer(failure=Failure.TIMEOUT)

    on_loop(scenario())
