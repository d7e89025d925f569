"""Identifiers: what they look like, and what can be read from them."""

from uuid import RFC_4122, UUID

import pytest

from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix

ENTROPY = bytes(range(10))
BIRTH_MS = 1_787_300_000_123
MESSAGE = ids.time_ordered(BIRTH_MS, ENTROPY)
ENDPOINT = ids.time_ordered(BIRTH_MS - 1000, ENTROPY)


# As text


@pytest.mark.parametrize("prefix", Prefix)
def test_an_id_is_its_prefix_and_22_base62_digits(prefix: Prefix) -> None:
    text = ids.encode(prefix, MESSAGE)
    head, _, digits = text.partition("_")
    assert (head, len(digits)) == (prefix, 22)
    assert digits.isascii()
    assert digits.isalnum()
    assert ids.decode(prefix, text) == MESSAGE


@pytest.mark.parametrize("identity", [UUID(int=0), UUID(int=(1 << 128) - 1)])
def test_the_smallest_and_the_largest_id_can_be_spelled(identity: UUID) -> None:
    assert ids.decode(Prefix.MESSAGE, ids.encode(Prefix.MESSAGE, identity)) == identity


GOOD = ids.encode(Prefix.MESSAGE, MESSAGE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("msg_", id="only a prefix"),
        pytest.param(GOOD.replace("msg_", "ep_"), id="another prefix"),
        pytest.param(GOOD.removeprefix("msg_"), id="no prefix"),
        pytest.param(GOOD[:-1], id="a digit short"),
        pytest.param(GOOD + "0", id="a digit too many"),
        pytest.param(GOOD[:-1] + ".", id="a full stop"),
        pytest.param(GOOD[:-1] + "\n", id="a new line"),
        pytest.param(GOOD[:-1] + "é", id="not ASCII"),
        pytest.param("msg_7n42DGM5Tflk9n8mt7Fhc8", id="one more than 128 bits hold"),
        pytest.param("msg_" + "z" * 22, id="much more"),
    ],
)
def test_what_is_not_an_id_of_the_kind_asked_for_is_refused(text: str) -> None:
    with pytest.raises(BadIdError, match="msg_"):
        ids.decode(Prefix.MESSAGE, text)


# In time


def test_an_id_tells_the_millisecond_of_its_birth() -> None:
    assert ids.born_ms(MESSAGE) == BIRTH_MS


def test_an_id_is_a_version_7_uuid() -> None:
    assert (MESSAGE.version, MESSAGE.variant) == (7, RFC_4122)


def test_two_ids_of_the_same_millisecond_differ_by_their_entropy() -> None:
    assert ids.time_ordered(BIRTH_MS, ENTROPY) == MESSAGE
    assert ids.time_ordered(BIRTH_MS, ENTROPY[::-1]) != MESSAGE


def test_the_lowest_id_of_a_millisecond_bounds_those_born_in_it() -> None:
    assert ids.lowest(BIRTH_MS) <= MESSAGE < ids.lowest(BIRTH_MS + 1)


@pytest.mark.parametrize("at_ms", [-1, 1 << 48])
def test_a_time_that_does_not_fit_48_bits_is_refused(at_ms: int) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        ids.time_ordered(at_ms, ENTROPY)


@pytest.mark.parametrize("entropy", [b"", ENTROPY[1:], ENTROPY + b"\0"])
def test_an_id_takes_exactly_10_bytes_of_entropy(entropy: bytes) -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        ids.time_ordered(BIRTH_MS, entropy)


# Of deliveries


def test_fanning_out_twice_names_the_same_delivery() -> None:
    assert ids.delivery_id(MESSAGE, ENDPOINT) == ids.delivery_id(MESSAGE, ENDPOINT)


def test_each_pair_of_message_and_endpoint_has_its_own_delivery() -> None:
    other = ids.time_ordered(BIRTH_MS, ENTROPY[::-1])
    pairs = [(MESSAGE, ENDPOINT), (MESSAGE, other), (other, ENDPOINT), (other, other)]
    assert len({ids.delivery_id(message, endpoint) for message, endpoint in pairs}) == len(pairs)


def test_a_delivery_lies_in_its_messages_ledger_partition() -> None:
    assert ids.born_ms(ids.delivery_id(MESSAGE, ENDPOINT)) == BIRTH_MS


def test_a_delivery_id_never_changes_between_versions_of_the_code() -> None:
    assert ids.delivery_id(MESSAGE, ENDPOINT) == UUID("01a02361-b17b-74bb-a382-4830f8790d29")
