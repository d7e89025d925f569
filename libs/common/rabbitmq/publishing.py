"""Publishing on a channel: many messages with one write and one wait, or one.

aiormq's own publishing takes a lock, two futures, a queue and another task for each message. Here frames are written
at once, and one future stands for all confirms.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from aiormq.channel import Channel
from msgspec import Struct
from pamqp.commands import Basic

from libs.common.domain.batches import cut
from libs.common.rabbitmq import frames
from libs.common.rabbitmq.wire import Wire
from libs.common.runtime import clock

MOST_MESSAGES: Final = 200
MOST_BYTES: Final = 1024 * 1024
_ID_PREFIX_DIGITS: Final = 16


class Outgoing(Struct, frozen=True, kw_only=True, gc=False):
    """A persistent message on its way to an exchange."""

    routing_key: str
    body: bytes


class NotTakenError(Exception):
    """The broker answered, and has not taken a message."""


class ReturnedError(NotTakenError):
    """Nobody has bound a queue where somebody should have."""


class _Burst:
    """Messages that wait for confirms: `whole` is done with the last of them, or with one that failed.

    Args:
        count: of the messages.
        asking: the routing keys of those, by their tag, that may be returned; the result are those that were.
    """

    __slots__ = ("_asking", "_left", "_unheard", "whole")

    def __init__(self, count: int, asking: Mapping[int, str]) -> None:
        self.whole: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
        self._left = count
        self._asking = asking
        self._unheard: frozenset[str] = frozenset()

    def confirm(self) -> None:
        self._left -= 1
        if not self._left and not self.whole.done():
            self.whole.set_result(self._unheard)

    def give_back(self, tag: int) -> None:
        """Its confirm follows."""
        routing_key = self._asking.get(tag)
        if routing_key is None:
            self.fail(ReturnedError("nobody has bound a queue"))
        else:
            self._unheard |= {routing_key}

    def fail(self, error: Exception) -> None:
        if not self.whole.done():
            self.whole.set_exception(error)
            self.whole.exception()  # who waited may be cancelled at the same moment: then nobody asks for it


def bursts(messages: Iterable[Outgoing]) -> Iterator[list[Outgoing]]:
    """Cut a run of messages into bursts of at most `MOST_MESSAGES` and about `MOST_BYTES` each."""
    return cut(messages, most=MOST_MESSAGES, most_weight=MOST_BYTES, weight=lambda message: len(message.body))


class Publisher:
    """Publishes on a channel of its own, whose confirms nobody else awaits.

    Args:
        wire: of the channel's connection.
        channel: gives confirms.
    """

    def __init__(self, wire: Wire, channel: Channel) -> None:
        self._wire = wire
        self._number = channel.number
        self._most = channel.max_content_size
        self._id_prefix = clock.random_bytes(_ID_PREFIX_DIGITS // 2).hex()
        self._last = 0
        self._first_waiting = 1
        self._waiting: dict[int, _Burst] = {}
        self._ended: Exception | None = None
        wire.take(channel.number, self._take)
        channel.closing.add_done_callback(self._end)

    def publish(
        self,
        exchange: str,
        messages: Sequence[Outgoing],
        *,
        content_type: str,
        mandatory: bool = False,
        asking: bool = False,
    ) -> "asyncio.Future[frozenset[str]]":
        """Write messages, one at least, in their order; done when the broker has confirmed each.

        Args:
            exchange: to which.
            messages: what.
            content_type: of each.
            mandatory: whether somebody must have bound a queue for each.
            asking: whether to learn which of their routing keys nobody has bound a queue for, which is the future's
                result. The first message of each one asks.

        The future's errors are

            NotTakenError: the broker refused one, or returned one that is mandatory; the others may be taken.
            AMQPError, OSError: the channel or its connection closed; which were taken is not known.
        """
        first_tag = self._last + 1
        asks = _firsts(messages, first_tag) if asking else {}
        pieces: list[bytes] = []
        for tag, message in enumerate(messages, first_tag):
            returnable = mandatory or tag in asks
            heads = frames.plain_heads(self._number, exchange, message.routing_key, content_type, mandatory=returnable)
            identity = self._id(tag).encode() if returnable else b""
            pieces += frames.publication(heads, identity, message.body, number=self._number, most=self._most)
        return self._write(b"".join(pieces), len(messages), asks)

    def send(
        self, exchange: str, routing_key: str, properties: Basic.Properties, body: bytes, *, mandatory: bool
    ) -> "asyncio.Future[frozenset[str]]":
        """As `publish`, for a message with properties of its own; a mandatory one's id is the publisher's."""
        if mandatory:
            assert properties.message_id is None, "the broker's return is told apart by it"
            properties.message_id = self._id(self._last + 1)
        heads = frames.heads(self._number, exchange, routing_key, properties, mandatory=mandatory)
        pieces = frames.publication(heads, b"", body, number=self._number, most=self._most)
        return self._write(b"".join(pieces), 1, {})

    def _write(self, written: bytes, count: int, asking: Mapping[int, str]) -> "asyncio.Future[frozenset[str]]":
        burst = _Burst(count, asking)
        if self._ended is not None:
            burst.fail(self._ended)
            return burst.whole
        self._wire.write(written)
        first = self._last + 1
        self._last += count
        self._waiting.update(dict.fromkeys(range(first, first + count), burst))
        return burst.whole

    def _id(self, tag: int) -> str:
        """The id of a mandatory message, which no other has, and which says its tag."""
        return f"{self._id_prefix}{tag:0{frames.ID_DIGITS - _ID_PREFIX_DIGITS}x}"

    def _give_back(self, message_id: str | None) -> None:
        if message_id is not None and message_id.startswith(self._id_prefix):
            tag = int(message_id[_ID_PREFIX_DIGITS:], 16)
            if (burst := self._waiting.get(tag)) is not None:
                burst.give_back(tag)

    def _take(self, kind: int, payload: bytes) -> bool:
        """Take confirms, and what is returned; all content that comes here is."""
        if kind == frames.METHOD:
            match payload[: len(frames.ACK)]:
                case frames.ACK:
                    for burst in self._answered(payload):
                        burst.confirm()
                case frames.NACK:
                    for burst in self._answered(payload):
                        burst.fail(NotTakenError("the broker refused it"))
                case method:
                    return method == frames.RETURN
        elif kind == frames.HEADER:
            self._give_back(frames.properties(payload).message_id)
        return kind <= frames.BODY

    def _answered(self, payload: bytes) -> Iterator[_Burst]:
        """Whose messages a confirm is for, as often as it is for one of theirs."""
        tag, multiple = frames.tagged(payload)
        if not multiple:
            tags = range(tag, tag + 1)
        else:
            tags = range(self._first_waiting, tag + 1)
            self._first_waiting = tag + 1
        for each in tags:
            burst = self._waiting.pop(each, None)
            if burst is not None:
                yield burst

    def _end(self, closing: "asyncio.Future[object]") -> None:
        """The channel has closed: nobody waits longer."""
        why = None if closing.cancelled() else closing.exception()
        # aiormq tells of an end that is our own with a bare `Exception` or a cancellation.
        if not isinstance(why, Exception) or type(why) is Exception:
            why = ConnectionAbortedError("the channel has closed")
        self._ended = why
        self._wire.leave(self._number)
        for burst in self._waiting.values():
            burst.fail(why)
        self._waiting.clear()


def _firsts(messages: Sequence[Outgoing], first_tag: int) -> Mapping[int, str]:
    """The first message of each routing key: its tag, and the key."""
    tags: dict[str, int] = {}
    for tag, message in enumerate(messages, first_tag):
        tags.setdefault(message.routing_key, tag)
    return {tag: routing_key for routing_key, tag in tags.items()}
