"""The frames of a connection reach whoever takes their channel, or aiormq, however the network cuts them."""

import asyncio
from typing import Any

import pamqp.frame
import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel
from pamqp.heartbeat import Heartbeat

from libs.common.rabbitmq import frames, wire

TAKEN = 3
CLOSE = Channel.Close(0, "", 0, 0)


def framed(frame: Any, number: int = TAKEN) -> bytes:
    return pamqp.frame.marshal(frame, number)


def payload(frame: Any) -> bytes:
    return framed(frame)[frames.HEAD.size : -1]


OTHERS = [framed(Basic.Ack(1), 2), framed(ContentBody(b"other"), 4), framed(Heartbeat(), 0), framed(CLOSE)]
COMING = b"".join(
    [
        *(framed(Basic.Ack(1)), OTHERS[0], OTHERS[1]),
        *(framed(ContentBody(b"body")), OTHERS[2], framed(ContentBody(bytes(300))), OTHERS[3]),
    ]
)


class Line:
    """What comes in, and where it goes: `took` of one channel, all else to `reader`."""

    def __init__(self) -> None:
        self.took: list[tuple[int, bytes]] = []
        self.reader = asyncio.StreamReader()
        self.sorting = wire._Sorting(self.reader, {TAKEN: self._take})

    async def left(self) -> bytes:
        """What aiormq gets."""
        self.reader.feed_eof()
        return await self.reader.read()

    def _take(self, kind: int, taken: bytes) -> bool:
        if taken == payload(CLOSE):
            return False
        self.took.append((kind, taken))
        return True


@pytest.mark.parametrize("size", [1, 2, 7, 8, 20, len(COMING) - 1, len(COMING)])
async def test_however_the_bytes_are_cut_each_frame_goes_where_it_belongs(size: int) -> None:
    line = Line()
    for at in range(0, len(COMING), size):
        line.sorting.data_received(COMING[at : at + size])
    assert line.took == [
        (frames.METHOD, payload(Basic.Ack(1))),
        (frames.BODY, b"body"),
        (frames.BODY, bytes(300)),
    ]
    assert await line.left() == b"".join(OTHERS)


async def test_what_is_no_frame_goes_to_aiormq_which_says_so() -> None:
    line = Line()
    broken = framed(ContentBody(b"body"))[:-1] + b"\0"
    line.sorting.data_received(broken)
    other_protocol = b"AMQP\0\0\x09\x01"
    line.sorting.data_received(other_protocol)
    line.sorting.data_received(b"more")
    assert line.took == []
    assert await line.left() == broken + other_protocol + b"more"


async def test_aiormq_hears_that_the_broker_lives_while_all_that_comes_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = Line()
    line.sorting.data_received(framed(Basic.Ack(1)))
    monkeypatch.setattr(wire, "TELL_SECONDS", 0)
    line.sorting.data_received(framed(Basic.Ack(2)))
    assert len(line.took) == 2
    assert await line.left() == framed(Heartbeat(), 0)
