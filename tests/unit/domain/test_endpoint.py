"""Which message goes to which endpoint, and with which keys it is signed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from libs.common.domain.endpoint import Endpoint, FilterVerdict, Rule, SigningKey, match

NOW = datetime(2026, 8, 21, tzinfo=UTC)
ENDPOINT = Endpoint(id=UUID(int=1), app=UUID(int=2), version=1, url="https://example.com/")


def endpoint(*, types: set[str] | None = None, channels: set[str] | None = None, enabled: bool = True) -> Endpoint:
    return Endpoint(
        id=ENDPOINT.id,
        app=ENDPOINT.app,
        version=1,
        url=ENDPOINT.url,
        enabled=enabled,
        event_types=None if types is None else frozenset(types),
        channels=None if channels is None else frozenset(channels),
    )


def rule(wanted: Endpoint, event_type: str = "order.completed", channels: tuple[str, ...] = ()) -> Rule:
    return match(wanted, event_type=event_type, channels=frozenset(channels), judge=never_asked)


def never_asked(expression: str) -> FilterVerdict:
    raise AssertionError(f"nothing is to be evaluated, and {expression} was")


# Matching


def test_an_endpoint_without_a_filter_takes_everything() -> None:
    assert rule(endpoint()) is Rule.ALL
    assert rule(endpoint(), channels=("eu",)) is Rule.ALL


def test_an_endpoint_with_event_types_takes_only_those() -> None:
    wanted = endpoint(types={"order.completed", "order.cancelled"})
    assert rule(wanted) is Rule.EVENT_TYPE
    assert rule(wanted, "order.created") is Rule.OTHER_EVENT_TYPE


def test_event_types_match_whole_and_in_their_case() -> None:
    wanted = endpoint(types={"order"})
    assert rule(wanted, "order.completed") is Rule.OTHER_EVENT_TYPE
    assert rule(wanted, "Order") is Rule.OTHER_EVENT_TYPE


def test_an_endpoint_with_channels_takes_messages_that_share_one() -> None:
    wanted = endpoint(channels={"eu", "us"})
    assert rule(wanted, channels=("us", "asia")) is Rule.CHANNEL
    assert rule(wanted, channels=("asia",)) is Rule.OTHER_CHANNEL


def test_an_endpoint_with_channels_takes_no_message_without_one() -> None:
    assert rule(endpoint(channels={"eu"})) is Rule.OTHER_CHANNEL


def test_type_and_channel_must_both_match() -> None:
    wanted = endpoint(types={"order.completed"}, channels={"eu"})
    assert rule(wanted, channels=("eu",)) is Rule.EVENT_TYPE_AND_CHANNEL
    assert rule(wanted, "order.created", ("eu",)) is Rule.OTHER_EVENT_TYPE
    assert rule(wanted, channels=("us",)) is Rule.OTHER_CHANNEL


def test_an_empty_list_of_event_types_takes_nothing() -> None:
    assert rule(endpoint(types=set())) is Rule.OTHER_EVENT_TYPE


def test_a_disabled_endpoint_takes_nothing_whatever_it_wants() -> None:
    assert rule(endpoint(types={"order.completed"}, enabled=False)) is Rule.DISABLED


@pytest.mark.parametrize("decided", Rule)
def test_every_rule_says_whether_it_matched(decided: Rule) -> None:
    refusals = {Rule.DISABLED, Rule.OTHER_EVENT_TYPE, Rule.OTHER_CHANNEL}
    filtered = {Rule.FILTERED_OUT, Rule.FILTER_FAILED, Rule.FILTER_TOO_COSTLY}
    assert decided.matched is (decided not in refusals | filtered)


@pytest.mark.parametrize(
    ("verdict", "decided"),
    [
        (FilterVerdict.PASSED, Rule.FILTER),
        (FilterVerdict.NOT_PASSED, Rule.FILTERED_OUT),
        (FilterVerdict.FAILED, Rule.FILTER_FAILED),
        (FilterVerdict.TOO_COSTLY, Rule.FILTER_TOO_COSTLY),
    ],
)
def test_a_filter_has_the_last_word(verdict: FilterVerdict, decided: Rule) -> None:
    wanted = replace(endpoint(types={"order.completed"}, channels={"eu"}), filter="amount > `100`")

    def judge(expression: str) -> FilterVerdict:
        assert expression == "amount > `100`"
        return verdict

    assert match(wanted, event_type="order.completed", channels=frozenset({"eu"}), judge=judge) is decided


def test_a_filter_is_not_asked_about_what_is_refused_anyway() -> None:
    wanted = replace(endpoint(types={"order.completed"}, channels={"eu"}), filter="amount > `100`")
    assert rule(wanted, "order.created", ("eu",)) is Rule.OTHER_EVENT_TYPE
    assert rule(wanted, channels=("us",)) is Rule.OTHER_CHANNEL
    assert rule(replace(wanted, enabled=False)) is Rule.DISABLED


# Keys


def key(number: int, expires_at: datetime | None = None) -> SigningKey:
    return SigningKey(id=UUID(int=number), secret=f"whsec_{number}", expires_at=expires_at)


def test_after_a_rotation_old_and_new_keys_sign_until_the_old_expires() -> None:
    new, old = key(1), key(2, NOW + timedelta(hours=24))
    rotated = Endpoint(id=ENDPOINT.id, app=ENDPOINT.app, version=2, url=ENDPOINT.url, keys=(new, old))
    assert rotated.signing_keys(NOW) == (new, old)
    assert rotated.signing_keys(NOW + timedelta(hours=24)) == (new,)


def test_a_secret_does_not_show_when_its_key_is_printed() -> None:
    assert "whsec" not in repr(key(1))
    assert "whsec" not in repr(Endpoint(id=ENDPOINT.id, app=ENDPOINT.app, version=1, url=ENDPOINT.url, keys=(key(1),)))
