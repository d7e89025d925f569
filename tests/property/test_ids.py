"""What holds of all identifiers."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.common.domain import ids
from libs.common.domain.ids import BadIdError, Prefix

IDENTITIES = st.uuids()
PREFIXES = st.sampled_from(Prefix)
TIMES = st.integers(min_value=0, max_value=(1 << 48) - 1)
ENTROPY = st.binary(min_size=10, max_size=10)
BORN = st.builds(ids.time_ordered, TIMES, ENTROPY)


@given(PREFIXES, IDENTITIES)
def test_every_id_can_be_spelled_and_read_back(prefix: Prefix, identity: UUID) -> None:
    assert ids.decode(prefix, ids.encode(prefix, identity)) == identity


@given(PREFIXES, st.text(max_size=40) | st.from_regex(r"(app|ep|msg|atmpt)_[0-9A-Za-z]{22}", fullmatch=True))
def test_a_text_is_one_id_spelled_in_one_way_or_none(prefix: Prefix, text: str) -> None:
    try:
        identity = ids.decode(prefix, text)
    except BadIdError:
        return
    assert ids.encode(prefix, identity) == text


@given(IDENTITIES, IDENTITIES)
def test_texts_sort_as_their_ids_do(one: UUID, other: UUID) -> None:
    texts = ids.encode(Prefix.MESSAGE, one), ids.encode(Prefix.MESSAGE, other)
    assert (texts[0] < texts[1]) is (one < other)


@given(TIMES, TIMES, ENTROPY, ENTROPY)
def test_ids_sort_by_the_millisecond_of_their_birth(first: int, second: int, one: bytes, other: bytes) -> None:
    earlier, later = sorted((first, second))
    if earlier < later:
        assert ids.time_ordered(earlier, one) < ids.time_ordered(later, other)


@given(TIMES, ENTROPY)
def test_an_id_keeps_the_millisecond_of_its_birth(at_ms: int, entropy: bytes) -> None:
    identity = ids.time_ordered(at_ms, entropy)
    assert (ids.born_ms(identity), identity.version) == (at_ms, 7)


@given(BORN, BORN)
def test_a_delivery_is_named_by_its_message_and_endpoint_alone(message: UUID, endpoint: UUID) -> None:
    delivery = ids.delivery_id(message, endpoint)
    assert delivery == ids.delivery_id(UUID(str(message)), UUID(str(endpoint)))
    assert ids.born_ms(delivery) == ids.born_ms(message)
    assert delivery.version == 7


@given(BORN, st.lists(BORN, min_size=2, max_size=8, unique=True))
def test_deliveries_of_one_message_to_many_endpoints_differ(message: UUID, endpoints: list[UUID]) -> None:
    assert len({ids.delivery_id(message, endpoint) for endpoint in endpoints}) == len(endpoints)


@given(TIMES.filter(lambda at_ms: at_ms + 1 < 1 << 48), ENTROPY)
def test_the_lowest_ids_of_two_milliseconds_enclose_those_of_the_first(at_ms: int, entropy: bytes) -> None:
    assert ids.lowest(at_ms) <= ids.time_ordered(at_ms, entropy) < ids.lowest(at_ms + 1)


@given(st.integers(max_value=-1) | st.integers(min_value=1 << 48), ENTROPY)
def test_no_id_is_made_for_a_time_that_it_could_not_tell(at_ms: int, entropy: bytes) -> None:
    with pytest.raises(ValueError, match="48 bits"):
        ids.time_ordered(at_ms, entropy)
