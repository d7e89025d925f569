"""Endpoints and messages as the dispatcher sees them, and which message goes where."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from operator import attrgetter
from typing import Final, TypeAlias, assert_never
from uuid import UUID

from msgspec import Struct

from libs.common.domain.retry import RetryPolicy

DEFAULT_TIMEOUT: Final = timedelta(seconds=10)
DEFAULT_MAX_INFLIGHT: Final = 32
_NUMBER: Final = attrgetter("int")


class Profile(StrEnum):
    """The form in which an endpoint receives its messages."""

    STANDARD = "standard"
    X_WEBHOOK = "x-webhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A secret of an endpoint: `secret` is its text as users see it (`whsec_…`). The ledger has its id only."""

    id: UUID
    secret: str = field(repr=False)
    expires_at: datetime | None = None


class FilterVerdict(StrEnum):
    """What a filter says of a payload."""

    PASSED = "passed"
    NOT_PASSED = "not_passed"
    FAILED = "failed"
    TOO_COSTLY = "too_costly"


Judge: TypeAlias = Callable[[str], FilterVerdict]
"""Evaluates a filter on the payload of the message in question; the same filter always gets the same verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A receiver's configuration at one version.

    Attributes:
        filter: an expression over the payload, which messages come.
        transformation: an expression over the payload, what is sent instead.
        max_inflight: attempts under way at the same time, over all dispatchers.
        app_max_inflight: the same for all endpoints of its application together; None: no limit.
        ordered: what waits goes out in the order of acceptance, by ordering key, one at a time.
        throttle_rate: attempts that begin per second, over all dispatchers.
        app_throttle_rate: the same for all endpoints of its application together.
        headers: sent with each attempt; some hold a secret.
    """

    id: UUID
    app: UUID
    version: int
    url: str
    enabled: bool = True
    event_types: frozenset[str] | None = None
    channels: frozenset[str] | None = None
    filter: str | None = None
    transformation: str | None = None
    profile: Profile = Profile.STANDARD
    keys: tuple[SigningKey, ...] = ()
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: timedelta = DEFAULT_TIMEOUT
    max_inflight: int = DEFAULT_MAX_INFLIGHT
    app_max_inflight: int | None = None
    ordered: bool = False
    throttle_rate: int | None = None
    app_throttle_rate: int | None = None
    compat_headers: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def unhindered(self) -> bool:
        """Whether a first attempt may begin at once, without asking a lane for its order or its rate."""
        return not self.ordered and self.throttle_rate is None and self.app_throttle_rate is None

    def signing_keys(self, now: datetime) -> tuple[SigningKey, ...]:
        """The keys in force, the newest first: after a rotation the old ones still sign until they expire."""
        return tuple([key for key in self.keys if key.expires_at is None or key.expires_at > now])


class Rule(StrEnum):
    """Why an endpoint was sent a message, or was not. `REQUESTED`: a person asked for it, whatever else would apply."""

    ALL = "all"
    EVENT_TYPE = "event_type"
    CHANNEL = "channel"
    EVENT_TYPE_AND_CHANNEL = "event_type_and_channel"
    FILTER = "filter"
    REQUESTED = "requested"
    DISABLED = "disabled"
    OTHER_EVENT_TYPE = "other_event_type"
    OTHER_CHANNEL = "other_channel"
    FILTERED_OUT = "filtered_out"
    FILTER_FAILED = "filter_failed"
    FILTER_TOO_COSTLY = "filter_too_costly"

    @property
    def matched(self) -> bool:
        """Whether the message goes to the endpoint."""
        return self in _MATCHING


_MATCHING: Final = frozenset(
    {Rule.ALL, Rule.EVENT_TYPE, Rule.CHANNEL, Rule.EVENT_TYPE_AND_CHANNEL, Rule.FILTER, Rule.REQUESTED}
)


def match(endpoint: Endpoint, *, event_type: str, channels: frozenset[str], judge: Judge) -> Rule:
    """Which rule decides whether a message of that type on those channels goes to `endpoint`.

    An endpoint without event types takes all of them; one without channels takes messages on any or no channel; one
    with channels takes only messages that share one. A filter has the last word, and is asked only if all else agrees.
    """
    if not endpoint.enabled:
        return Rule.DISABLED
    if endpoint.event_types is not None and event_type not in endpoint.event_types:
        return Rule.OTHER_EVENT_TYPE
    if endpoint.channels is not None and endpoint.channels.isdisjoint(channels):
        return Rule.OTHER_CHANNEL
    if endpoint.filter is not None:
        return _by_filter(judge(endpoint.filter))
    match (endpoint.event_types is not None, endpoint.channels is not None):
        case (True, True):
            return Rule.EVENT_TYPE_AND_CHANNEL
        case (True, False):
            return Rule.EVENT_TYPE
        case (False, True):
            return Rule.CHANNEL
        case _:
            return Rule.ALL


def _by_filter(verdict: FilterVerdict) -> Rule:
    match verdict:
        case FilterVerdict.PASSED:
            return Rule.FILTER
        case FilterVerdict.NOT_PASSED:
            return Rule.FILTERED_OUT
        case FilterVerdict.FAILED:
            return Rule.FILTER_FAILED
        case FilterVerdict.TOO_COSTLY:
            return Rule.FILTER_TOO_COSTLY
        case _:
            assert_never(verdict)


class FanOut(Struct, frozen=True, kw_only=True):
    """Where one message goes: the endpoints that match, in the order of their ids, and how many each rule decided."""

    matches: tuple[tuple[Endpoint, Rule], ...]
    counts: Mapping[Rule, int]
    continues_after: UUID | None


def fan_out(
    endpoints: Mapping[UUID, Endpoint],
    *,
    event_type: str,
    channels: frozenset[str],
    judge: Judge,
    after: UUID | None,
    most: int,
) -> FanOut:
    """Match a message against an application's endpoints, at most `most` matches at a time.

    Args:
        endpoints: of the message's application, by id.
        event_type: of the message.
        channels: of the message.
        judge: evaluates filters on its payload.
        after: the endpoint at which an earlier call stopped, or None.
        most: after so many matches the result says where to go on.
    """
    matches: list[tuple[Endpoint, Rule]] = []
    counts: dict[Rule, int] = {}
    for identity in sorted(endpoints, key=_NUMBER):  # ids compare as their numbers do, those are compared faster
        if after is not None and identity <= after:
            continue
        if len(matches) == most:
            return FanOut(matches=tuple(matches), counts=counts, continues_after=matches[-1][0].id)
        endpoint = endpoints[identity]
        rule = match(endpoint, event_type=event_type, channels=channels, judge=judge)
        counts[rule] = counts.get(rule, 0) + 1
        if rule.matched:
            matches.append((endpoint, rule))
    return FanOut(matches=tuple(matches), counts=counts, continues_after=None)
