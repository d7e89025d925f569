"""Frames of AMQP that are made and read for every message, cut from what never changes.

Everything else on a connection is aiormq's. Source: AMQP 0-9-1, sections 2.3.5 and 4.2.
"""

import struct
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

import pamqp.frame
from msgspec import Struct
from msgspec.structs import replace
from pamqp.commands import Basic, Connection
from pamqp.header import ContentHeader

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEAD: Final = struct.Struct(">BHI")
"""Before each frame's payload: its kind, its channel and the payload's size."""
END: Final = 0xCE
HEARTBEAT: Final = bytes((8, 0, 0, 0, 0, 0, 0, END))

ACK: Final = Basic.Ack.index.to_bytes(4)
NACK: Final = Basic.Nack.index.to_bytes(4)
RETURN: Final = Basic.Return.index.to_bytes(4)
DELIVER: Final = Basic.Deliver.index.to_bytes(4)
BLOCKED: Final = Connection.Blocked.index.to_bytes(4)
UNBLOCKED: Final = Connection.Unblocked.index.to_bytes(4)

ID_DIGITS: Final = 32
_PERSISTENT: Final = 2
_HEADS_KEPT: Final = 1024
_END: Final = bytes((END,))
_SIZE: Final = struct.Struct(">Q")
_SIZE_AT: Final = 4
"""In a content header: behind the class and the weight."""
_TAGGED: Final = struct.Struct(">QB")
_MULTIPLE: Final = 1
"""Of a confirm's bits. A refusal has another one, `requeue`, which RabbitMQ sets and which means nothing there."""
_SETTLING: Final = struct.Struct(">BHI4sQBB")


class Heads(Struct, frozen=True, kw_only=True, gc=False):
    """What stands before a body on its way to an exchange: the method's frame, and the header's around the body's size.

    The header's end is left out.
    """

    method: bytes
    before_size: bytes
    after_size: bytes


class Delivery(Struct, frozen=True, kw_only=True, gc=False):
    """What the broker says before the content of a message that it delivers."""

    tag: int
    redelivered: bool
    exchange: str
    routing_key: str


@lru_cache(_HEADS_KEPT)
def plain_heads(number: int, exchange: str, routing_key: str, content_type: str, *, mandatory: bool) -> Heads:
    """The heads of a persistent message of which nothing else is said, on channel `number`.

    A mandatory one's lacks the id at its end: it is another for each.
    """
    properties = Basic.Properties(content_type=content_type, delivery_mode=_PERSISTENT)
    if not mandatory:
        return heads(number, exchange, routing_key, properties, mandatory=False)
    properties.message_id = "0" * ID_DIGITS
    whole = heads(number, exchange, routing_key, properties, mandatory=True)
    return replace(whole, after_size=whole.after_size[:-ID_DIGITS])


def heads(number: int, exchange: str, routing_key: str, properties: Basic.Properties, *, mandatory: bool) -> Heads:
    """The heads of a message with these properties, on channel `number`."""
    method = Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=mandatory)
    header = pamqp.frame.marshal(ContentHeader(properties=properties, body_size=0), number)
    size_at = HEAD.size + _SIZE_AT
    return Heads(
        method=pamqp.frame.marshal(method, number),
        before_size=header[:size_at],
        after_size=header[size_at + _SIZE.size : -len(_END)],
    )


def publication(heads: Heads, identity: bytes, body: bytes, *, number: int, most: int) -> Iterator[bytes]:
    """A message's frames, in pieces.

    Args:
        heads: its own.
        identity: what they lack at their end.
        body: is cut into frames of `most` bytes.
        number: of the channel.
        most: bytes in a frame; 0 or fewer where the broker has no bound.
    """
    yield heads.method
    yield heads.before_size + _SIZE.pack(len(body)) + heads.after_size + identity
    yield _END
    if most <= 0:
        most = sys.maxsize
    for at in range(0, len(body), most):
        piece = body[at : at + most]
        yield HEAD.pack(BODY, number, len(piece)) + piece + _END


def settling(number: int, method: bytes, tag: int, *, requeue: bool = False) -> bytes:
    """The frame that acknowledges one delivered message or gives it back, on channel `number`."""
    return _SETTLING.pack(METHOD, number, len(method) + _TAGGED.size, method, tag, requeue << 1, END)


def tagged(payload: bytes) -> tuple[int, bool]:
    """The tag of a confirm, and whether it is for all before it, too."""
    tag, bits = _TAGGED.unpack_from(payload, len(ACK))
    return tag, bool(bits & _MULTIPLE)


def delivery(payload: bytes) -> Delivery:
    """What the broker says of a message that it delivers."""
    at = len(DELIVER)
    at += 1 + payload[at]  # the consumer: there is one on each channel
    tag, redelivered = _TAGGED.unpack_from(payload, at)
    exchange, at = _short(payload, at + _TAGGED.size)
    routing_key, _ = _short(payload, at)
    return Delivery(tag=tag, redelivered=bool(redelivered), exchange=exchange, routing_key=routing_key)


def size(header: bytes) -> int:
    """The size of the body that follows a content header, in bytes."""
    found: int = _SIZE.unpack_from(header, _SIZE_AT)[0]
    return found


def properties(header: bytes) -> Basic.Properties:
    """What a content header says of its message."""
    read = ContentHeader()
    read.unmarshal(header)
    return read.properties


def _short(payload: bytes, at: int) -> tuple[str, int]:
    """A short string, and where it ends.

    Clients may put any bytes into a routing key, and RabbitMQ passes them on: what is no UTF-8 is no reason to lose all
    that comes on the connection.
    """
    begins = at + 1
    ends = begins + payload[at]
    return payload[begins:ends].decode(errors="replace"), ends
