"""Envelopes: frozen, since during an upgrade old and new services read one another's."""

from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from libs.common.contracts import envelope
from libs.common.contracts.envelope import MAX_BYTES, MAX_MESSAGES, MalformedEnvelopeError
from libs.common.domain.facts import Origin
from libs.common.domain.message import Message

FULL = Message(
    id=UUID("01a02361-b17b-7004-8203-040506070809"),
    org=UUID(int=2),
    app=UUID(int=3),
    event_type="order.completed",
    body=b'{"total": 1.10}\n\xff\x00',
    accepted_at=datetime(2026, 8, 21, 10, 0, 0, 123456, tzinfo=UTC),
    registry_version=42,
    origin=Origin.BROKER,
    content_type="application/json; charset=utf-8",
    channels=frozenset({"eu"}),
    event_id="evt-1",
    source=UUID(int=4),
    tags=frozenset({"audit"}),
    ordering_key="customer-7",
    deliver_at=datetime(2026, 8, 22, 10, 0, 0, tzinfo=UTC),
    erase_body_at=datetime(2026, 8, 29, 10, 0, 0, tzinfo=UTC),
    publish=True,
)
PLAIN = Message(
    id=UUID(int=1),
    org=UUID(int=2),
    app=UUID(int=3),
    event_type="ping",
    body=b"{}",
    accepted_at=datetime(2026, 8, 21, 10, 0, 0, tzinfo=UTC),
    registry_version=0,
    origin=Origin.API,
)
WITHOUT_WISHES = bytes.fromhex(
    "82a6736368656d6101a86d65737361676573928ea26964d92430316130323336312d623137622d373030342d383230332d303430353036"
    "303730383039a36f7267d92430303030303030302d303030302d303030302d303030302d303030303030303030303032a3617070d92430"
    "303030303030302d303030302d303030302d303030302d303030303030303030303033aa6576656e745f74797065af6f726465722e636f"
    "6d706c65746564a4626f6479c4127b22746f74616c223a20312e31307d0aff00ab61636365707465645f6174d7ff1d6f28006a8821a0b0"
    "72656769737472795f76657273696f6e2aa66f726967696ea662726f6b6572ac636f6e74656e745f74797065bf6170706c69636174696f"
    "6e2f6a736f6e3b20636861727365743d7574662d38a86368616e6e656c7391a26575a86576656e745f6964a56576742d31a6736f757263"
    "65d92430303030303030302d303030302d303030302d303030302d303030303030303030303034ac6f72646572696e675f6b6579aa6375"
    "73746f6d65722d37a77075626c697368c38ea26964d92430303030303030302d303030302d303030302d303030302d3030303030303030"
    "30303031a36f7267d92430303030303030302d303030302d303030302d303030302d303030303030303030303032a3617070d924303030"
    "30303030302d303030302d303030302d303030302d303030303030303030303033aa6576656e745f74797065a470696e67a4626f6479c4"
    "027b7dab61636365707465645f6174d6ff6a8821a0b072656769737472795f76657273696f6e00a66f726967696ea3617069ac636f6e74"
    "656e745f74797065b06170706c69636174696f6e2f6a736f6ea86368616e6e656c7390a86576656e745f6964c0a6736f75726365c0ac6f"
    "72646572696e675f6b6579c0a77075626c697368c2"
)

# Since 0.1 each message also says whether its payload was erased, as its last field; older readers pass over it.
_ERASED = bytes.fromhex("a6657261736564c2")
ERASABLE = (
    WITHOUT_WISHES.replace(b"\x8e\xa2id", b"\x8f\xa2id")
    .replace(b"\xa7publish\xc3", b"\xa7publish\xc3" + _ERASED)
    .replace(b"\xa7publish\xc2", b"\xa7publish\xc2" + _ERASED)
)

# And what its producer wishes: tags, and the times of delivery and of erasing.
GOLDEN = bytes.fromhex(
    "82a6736368656d6101a86d6573736167657392de0012a26964d92430316130323336312d623137622d373030342d383230332d30343035"
    "3036303730383039a36f7267d92430303030303030302d303030302d303030302d303030302d303030303030303030303032a3617070d9"
    "2430303030303030302d303030302d303030302d303030302d303030303030303030303033aa6576656e745f74797065af6f726465722e"
    "636f6d706c65746564a4626f6479c4127b22746f74616c223a20312e31307d0aff00ab61636365707465645f6174d7ff1d6f28006a8821"
    "a0b072656769737472795f76657273696f6e2aa66f726967696ea662726f6b6572ac636f6e74656e745f74797065bf6170706c69636174"
    "696f6e2f6a736f6e3b20636861727365743d7574662d38a86368616e6e656c7391a26575a86576656e745f6964a56576742d31a6736f75"
    "726365d92430303030303030302d303030302d303030302d303030302d303030303030303030303034a47461677391a56175646974ac6f"
    "72646572696e675f6b6579aa637573746f6d65722d37aa64656c697665725f6174d6ff6a897320ad65726173655f626f64795f6174d6ff"
    "6a92ada0a77075626c697368c3a6657261736564c2de0012a26964d92430303030303030302d303030302d303030302d303030302d3030"
    "30303030303030303031a36f7267d92430303030303030302d303030302d303030302d303030302d303030303030303030303032a36170"
    "70d92430303030303030302d303030302d303030302d303030302d303030303030303030303033aa6576656e745f74797065a470696e67"
    "a4626f6479c4027b7dab61636365707465645f6174d6ff6a8821a0b072656769737472795f76657273696f6e00a66f726967696ea36170"
    "69ac636f6e74656e745f74797065b06170706c69636174696f6e2f6a736f6ea86368616e6e656c7390a86576656e745f6964c0a6736f75"
    "726365c0a47461677390ac6f72646572696e675f6b6579c0aa64656c697665725f6174c0ad65726173655f626f64795f6174c0a7707562"
    "6c697368c2a6657261736564c2"
)


# The frozen bytes


def test_an_envelope_is_exactly_these_bytes() -> None:
    assert envelope.encode([FULL, PLAIN]).hex() == GOLDEN.hex()


def test_these_bytes_are_read_as_those_messages() -> None:
    assert envelope.decode(GOLDEN) == [FULL, PLAIN]


@pytest.mark.parametrize("data", [WITHOUT_WISHES, ERASABLE], ids=["before erasing", "before wishes"])
def test_envelopes_of_earlier_versions_are_still_read(data: bytes) -> None:
    without_wishes = replace(FULL, tags=frozenset(), deliver_at=None, erase_body_at=None)
    assert envelope.decode(data) == [without_wishes, PLAIN]


def test_a_body_travels_as_the_bytes_that_it_is() -> None:
    assert FULL.body in GOLDEN


@given(st.lists(st.binary(max_size=300), max_size=5))
def test_bodies_come_out_as_they_went_in(bodies: list[bytes]) -> None:
    messages = [replace(PLAIN, body=body) for body in bodies]
    assert envelope.decode(envelope.encode(messages)) == messages


# What is no envelope


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{}", id="JSON"),
        pytest.param(GOLDEN[:-1], id="cut short"),
        pytest.param(GOLDEN + b"\x00", id="something behind it"),
        pytest.param(msgspec.msgpack.encode({"schema": 1}), id="no messages"),
        pytest.param(msgspec.msgpack.encode({"schema": 1, "messages": [{"id": "x"}]}), id="no message"),
        pytest.param(msgspec.msgpack.encode({"schema": 2, "messages": []}), id="a newer schema"),
        pytest.param(msgspec.msgpack.encode({"schema": 0, "messages": []}), id="no schema"),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEnvelopeError):
        envelope.decode(data)


# Packing


def messages(*sizes: int) -> list[Message]:
    return [replace(PLAIN, body=bytes(size)) for size in sizes]


def test_no_messages_make_no_envelope() -> None:
    assert list(envelope.pack([])) == []


def test_an_envelope_holds_256_messages_at_most() -> None:
    assert [len(packed) for packed in envelope.pack(messages(*[1] * (2 * MAX_MESSAGES + 1)))] == [256, 256, 1]


def test_an_envelope_holds_a_mebibyte_of_bodies_at_most() -> None:
    half = MAX_BYTES // 2
    assert [len(packed) for packed in envelope.pack(messages(half, half, 1, half))] == [2, 2]


def test_a_large_message_goes_alone() -> None:
    assert [len(packed) for packed in envelope.pack(messages(1, MAX_BYTES + 1, 1))] == [1, 1, 1]


@given(st.lists(st.sampled_from([0, 1, MAX_BYTES // 3, MAX_BYTES // 2, MAX_BYTES]), max_size=20))
def test_packing_keeps_every_message_in_its_order(sizes: list[int]) -> None:
    packed = list(envelope.pack(messages(*sizes)))
    assert [len(message.body) for group in packed for message in group] == sizes
    assert all(group for group in packed)
    assert all(len(group) == 1 or sum(len(message.body) for message in group) <= MAX_BYTES for group in packed)
