"""The frames of a burst are those that aiormq would write."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from libs.common.rabbitmq import burst
from libs.common.rabbitmq.burst import Outgoing

MOST = 10
NUMBER = 7


def marshalled(message: Outgoing, pieces: list[bytes]) -> bytes:
    properties = Basic.Properties(content_type="x/x", delivery_mode=2)
    frames: list[Any] = [
        Basic.Publish(exchange="deliveries", routing_key=message.routing_key),
        ContentHeader(properties=properties, body_size=len(message.body)),
        *map(ContentBody, pieces),
    ]
    return ChannelFrame.marshall(channel_number=NUMBER, frames=frames).payload


@pytest.mark.parametrize(
    ("most", "body", "pieces"),
    [
        (MOST, b"", []),
        (MOST, b"a", [b"a"]),
        (MOST, bytes(MOST), [bytes(MOST)]),
        (MOST, bytes(MOST) + b"a", [bytes(MOST), b"a"]),
        (-8, bytes(50), [bytes(50)]),
    ],
    ids=["empty", "short", "as long as a frame", "longer", "a broker without a bound"],
)
def test_frames_are_those_of_the_protocol(most: int, body: bytes, pieces: list[bytes]) -> None:
    channel: Any = SimpleNamespace(number=NUMBER, max_content_size=most)
    message = Outgoing(routing_key="delivery.succeeded", body=body)
    written = b"".join(burst._frames(channel, "deliveries", [message], "x/x"))
    assert written == marshalled(message, pieces)
