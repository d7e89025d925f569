"""Envelopes: one AMQP message that carries many accepted messages from ingress to a dispatcher.

MessagePack, so that bodies stay the bytes they are. An envelope may be lost: the outbox row is the durability.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from libs.common.domain.batches import cut
from libs.common.domain.message import Message

CONTENT_TYPE: Final = "application/vnd.hookledger.envelope+msgpack"
SCHEMA: Final = 1
MAX_MESSAGES: Final = 256
MAX_BYTES: Final = 1024 * 1024


class MalformedEnvelopeError(Exception):
    """The bytes are no envelope of a schema known here. The sender erred."""


class _Envelope(msgspec.Struct, kw_only=True):
    schema: int
    messages: list[Message]


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Envelope)


def encode(messages: Sequence[Message]) -> bytes:
    """One envelope of these messages."""
    return _ENCODER.encode(_Envelope(schema=SCHEMA, messages=list(messages)))


def decode(data: bytes) -> list[Message]:
    """The messages of an envelope.

    Raises:
        MalformedEnvelopeError: not an envelope, or of a newer schema.
    """
    try:
        envelope = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise MalformedEnvelopeError(str(error)) from error
    if envelope.schema != SCHEMA:
        raise MalformedEnvelopeError(f"envelope schema {envelope.schema} is not known here")
    return envelope.messages


def pack(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Cut a run of messages into envelopes of at most `MAX_MESSAGES` and about `MAX_BYTES` of bodies each."""
    return cut(messages, most=MAX_MESSAGES, most_weight=MAX_BYTES, weight=lambda message: len(message.body))
