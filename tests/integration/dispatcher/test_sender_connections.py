"""Kept connections: used again while they are clean, and never trusted beyond that."""

import asyncio
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from libs.common.domain.outcome import Answer, Failure
from tests.integration.dispatcher.conftest import OnLoop
from tests.integration.dispatcher.raw_receiver import Conversation, RawReceiver, raw_receiver
from tests.integration.dispatcher.sending import SenderOf, send

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"


def answers_once_then_closes(*, also_fresh: bool = False, saying: bytes = b"") -> Callable[[RawReceiver], Conversation]:
    """On the first connection: an answer, then on the second request `saying` and a close. Later ones answer."""

    def converse(receiver: RawReceiver) -> Conversation:
        async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
            await receiver.read_request(reader)
            if number == 1:
                writer.write(OK)
                await receiver.read_request(reader)
            if number == 1 or also_fresh:
                writer.write(saying)
                return
            while True:
                writer.write(OK)
                await receiver.read_request(reader)

        return conversation

    return converse


@pytest.mark.parametrize(
    "unasked",
    [GONE, GONE + GONE, GONE[:20], b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", b"\0garbage", b"\r\n", b"H"],
    ids=["answer", "two", "half-a-head", "half-a-body", "garbage", "empty-line", "one-byte"],
)
def test_bytes_that_come_unasked_on_an_idle_connection_are_never_the_next_answer(
    on_loop: OnLoop, sender: SenderOf, unasked: bytes
) -> None:
    async def scenario() -> None:
        idle, said = asyncio.Event(), asyncio.Event()

        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
                await receiver.read_request(reader)
                writer.write(OK)
                if number == 1:
                    await idle.wait()
                    writer.write(unasked)
                    await writer.drain()
                    said.set()
                await receiver.read_request(reader)
                writer.write(GONE)

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            await send(client, receiver.url())
            idle.set()
            await said.wait()
            for _ in range(5):  # the client's loop reads what has come
                await asyncio.sleep(0.002)
            report = await send(client, receiver.url())
            assert (report.answer, report.response) == (Answer(status=200), b"ok")
            assert report.sends == 1
            assert receiver.connections == 2

    on_loop(scenario())


def test_bytes_that_came_unasked_and_were_not_read_yet_are_not_the_next_answer_either(
    on_loop: OnLoop, sender: SenderOf
) -> None:
    async def scenario() -> None:
        with blocking_receiver() as (port, accepted):
            async with sender() as client:
                url = f"http://127.0.0.1:{port}/hook"
                await send(client, url)
                accepted[0].sendall(GONE)  # it stands in the kernel: our loop has not run since
                report = await send(client, url)
                assert (report.answer, report.response) == (Answer(status=200), b"ok")
                assert len(accepted) == 2

    on_loop(scenario())


def test_an_answer_that_has_company_is_taken_and_its_connection_dropped(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
                while True:
                    await receiver.read_request(reader)
                    writer.write(OK + GONE)

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            reports = [await send(client, receiver.url()) for _ in range(3)]
        assert [report.answer.status for report in reports] == [200, 200, 200]
        assert receiver.connections == 3

    on_loop(scenario())


def test_a_connection_closed_while_idle_costs_no_send(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        with blocking_receiver() as (port, accepted):
            async with sender() as client:
                url = f"http://127.0.0.1:{port}/hook"
                await send(client, url)
                accepted[0].shutdown(socket.SHUT_WR)
                report = await send(client, url)
                assert (report.answer, report.sends) == (Answer(status=200), 1)
                assert len(accepted) == 2

    on_loop(scenario())


def test_a_kept_connection_that_closes_under_the_request_is_followed_by_one_more_send(
    on_loop: OnLoop, sender: SenderOf
) -> None:
    async def scenario() -> None:
        async with raw_receiver(answers_once_then_closes()) as receiver, sender() as client:
            await send(client, receiver.url())
            report = await send(client, receiver.url())
        assert (report.answer, report.sends) == (Answer(status=200), 2)
        assert len(receiver.requests) == 3
        assert receiver.connections == 2

    on_loop(scenario())


def test_the_second_send_goes_on_a_fresh_connection_though_others_are_idle(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        together = asyncio.Barrier(3)

        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
                await receiver.read_request(reader)
                if number <= 3:
                    await together.wait()
                writer.write(OK)
                await receiver.read_request(reader)  # and closes without a word

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            await asyncio.gather(*(send(client, receiver.url()) for _ in range(3)))
            assert receiver.connections == 3
            report = await send(client, receiver.url())
        assert (report.answer, report.sends) == (Answer(status=200), 2)
        assert receiver.connections == 4

    on_loop(scenario())


def test_there_are_never_more_than_two_sends(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        async with raw_receiver(answers_once_then_closes(also_fresh=True)) as receiver, sender() as client:
            await send(client, receiver.url())
            report = await send(client, receiver.url())
        assert (report.answer, report.sends) == (Answer(failure=Failure.RESET), 2)
        assert len(receiver.requests) == 3

    on_loop(scenario())


def test_a_fresh_connection_that_closes_without_an_answer_is_not_tried_again(on_loop: OnLoop, sender: SenderOf) -> None:
    async def scenario() -> None:
        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, _: asyncio.StreamWriter, _number: int) -> None:
                await receiver.read_request(reader)

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            report = await send(client, receiver.url())
        assert (report.answer, report.sends) == (Answer(failure=Failure.RESET), 1)
        assert len(receiver.requests) == 1

    on_loop(scenario())


@pytest.mark.parametrize(
    ("beginning", "failure"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", Failure.RESET),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Failure.RESET),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhalf", Failure.RESET),
    ],
    ids=["in-the-head", "in-the-body", "in-a-chunk"],
)
def test_an_answer_that_has_begun_is_not_asked_for_again(
    on_loop: OnLoop, sender: SenderOf, beginning: bytes, failure: Failure
) -> None:
    async def scenario() -> None:
        async with raw_receiver(answers_once_then_closes(saying=beginning)) as receiver, sender() as client:
            await send(client, receiver.url())
            report = await send(client, receiver.url())
        assert (report.answer, report.sends) == (Answer(failure=failure), 1)
        assert len(receiver.requests) == 2

    on_loop(scenario())


def test_whatever_receivers_do_to_their_connections_each_send_gets_its_own_answer_or_none(
    on_loop: OnLoop, sender: SenderOf
) -> None:
    async def scenario() -> None:
        chance = random.Random(17)

        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _number: int) -> None:
                while True:
                    asked = (await receiver.read_request(reader)).partition(b"\r\n\r\n")[2]
                    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(asked), asked)
                    manner = chance.choice(["keeps", "keeps", "keeps", "slow", "closes", "silent", "half", "adds"])
                    if manner in {"slow", "adds"}:
                        await asyncio.sleep(0.001)
                    if manner != "silent":
                        writer.write(answer[:-2] if manner == "half" else answer)
                    if manner == "adds":
                        writer.write(GONE)
                    if manner in {"closes", "silent", "half"}:
                        return

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:

            async def one_after_another(worker: int) -> None:
                for n in range(30):
                    body = b'{"n":%d.%d}' % (worker, n)
                    report = await send(client, receiver.url(), body=body)
                    if report.answer.failure is None:
                        assert (report.answer.status, report.response) == (200, body)
                    else:
                        assert report.answer.failure is Failure.RESET

            await asyncio.gather(*map(one_after_another, range(20)))

    on_loop(scenario())


def test_a_connection_that_is_dropped_is_not_left_open(on_loop: OnLoop, sender: SenderOf) -> None:
    """A receiver that keeps its side open must not cost us a descriptor."""

    async def scenario() -> None:
        ended = asyncio.Event()

        def converse(receiver: RawReceiver) -> Conversation:
            async def conversation(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
                await receiver.read_request(reader)
                writer.write(OK + (GONE if number == 1 else b""))
                if await reader.read() == b"":
                    ended.set()

            return conversation

        async with raw_receiver(converse) as receiver, sender() as client:
            await send(client, receiver.url())
            async with asyncio.timeout(5):
                await ended.wait()

    on_loop(scenario())


@contextmanager
def blocking_receiver() -> Iterator[tuple[int, list[socket.socket]]]:
    """Answers 200 from threads, so that it gets along without the client's event loop."""
    listening = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []

    def answer(connection: socket.socket) -> None:
        held = b""
        with suppress(OSError):
            while piece := connection.recv(65536):
                held += piece
                if held.endswith(b"}"):  # the end of the only body that these tests send
                    held = b""
                    connection.sendall(OK)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            accepted.append(connection)
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1], accepted
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)
        for connection in accepted:
            connection.close()
