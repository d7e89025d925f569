"""The frames that we make are those that aiormq would, and those that we read say what it would read."""

from typing import Any

import pamqp.frame
import pytest
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from libs.common.rabbitmq import frames

MOST = 10
NUMBER = 7
ID = "0123456789abcdef" * 2


def marshalled(mandatory: bool, body: bytes, pieces: list[bytes]) -> bytes:
    properties = Basic.Properties(content_type="x/x", delivery_mode=2, message_id=ID if mandatory else None)
    written: list[Any] = [
        Basic.Publish(exchange="deliveries", routing_key="delivery.succeeded", mandatory=mandatory),
        ContentHeader(properties=properties, body_size=len(body)),
        *map(ContentBody, pieces),
    ]
    return ChannelFrame.marshall(channel_number=NUMBER, frames=written).payload


def payload(frame: Any) -> bytes:
    return pamqp.frame.marshal(frame, NUMBER)[frames.HEAD.size : -1]


@pytest.mark.parametrize("mandatory", [False, True], ids=["optional", "mandatory"])
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
def test_a_publication_is_the_protocols(mandatory: bool, most: int, body: bytes, pieces: list[bytes]) -> None:
    heads = frames.plain_heads(NUMBER, "deliveries", "delivery.succeeded", "x/x", mandatory=mandatory)
    identity = ID.encode() if mandatory else b""
    written = b"".join(frames.publication(heads, identity, body, number=NUMBER, most=most))
    assert written == marshalled(mandatory, body, pieces)


def test_what_settles_a_message_is_the_protocols() -> None:
    for method, requeue, frame in (
        (frames.ACK, False, Basic.Ack(2**40)),
        (frames.NACK, False, Basic.Nack(2**40, requeue=False)),
        (frames.NACK, True, Basic.Nack(2**40, requeue=True)),
    ):
        assert frames.settling(NUMBER, method, 2**40, requeue=requeue) == pamqp.frame.marshal(frame, NUMBER)


@pytest.mark.parametrize("multiple", [False, True])
def test_a_confirm_is_read_with_its_tag_and_whether_it_is_for_all_before_it_too(multiple: bool) -> None:
    assert frames.tagged(payload(Basic.Ack(2**40, multiple))) == (2**40, multiple)
    assert frames.tagged(payload(Basic.Nack(3, multiple, requeue=True))) == (3, multiple)


@pytest.mark.parametrize("redelivered", [False, True])
def test_a_delivery_and_its_header_are_read(redelivered: bool) -> None:
    delivered = Basic.Deliver("a consumer", 2**40, redelivered, "messages", "ключ")
    assert frames.delivery(payload(delivered)) == frames.Delivery(
        tag=2**40, redelivered=redelivered, exchange="messages", routing_key="ключ"
    )
    properties = Basic.Properties(content_type="x/x", headers={"a": 1}, user_id="somebody")
    header = payload(ContentHeader(body_size=2**33, properties=properties))
    assert frames.size(header) == 2**33
    assert frames.properties(header) == properties


def test_a_routing_key_that_is_no_text_is_read_all_the_same() -> None:
    delivered = payload(Basic.Deliver("a consumer", 1, False, "publish", "gr..e")).replace(b"..", b"\xf6\xdf")
    assert frames.delivery(delivered).routing_key == "gr\ufffd\ufffde"
