"""The verdict on one round, from three independent records: what the clients were told, what the receivers saw, and what
the ledger says. Pure: records in, violations out, each one line with the number of its invariant in the design.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from standardwebhooks.webhooks import Webhook

from libs.common.domain.delivery import Status, fold
from libs.common.domain.facts import (
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryFact,
    DeliveryScheduled,
    RetryScheduled,
)
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.signatures.rules import hmac_sha256
from tests.faults.campaign.plan import Behaviour
from tests.faults.campaign.told import Target, Told
from tests.support.invariants import MOST_SENDS, Seen, Stream, broken, disagreements
from tests.support.receiver import Received

FRESH: timedelta = timedelta(seconds=60)
"""How far a signature's time may be from its arrival: it may have been signed before its process was frozen."""
_JITTER = 0.2
_MOST_RETRY_AFTER = timedelta(hours=1)
_MOMENT = timedelta(milliseconds=2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message as it is in Postgres."""

    event_type: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """The three records of one round.

    Attributes:
        told: what the clients were told.
        seen: what the receivers saw, in the order in which it came.
        stored: the messages, by id.
        streams: the ledger of the deliveries.
        outbox: how many messages wait for their fan-out.
        wiped: whether the broker's data were deleted, and with them what only the broker had been told.
        unsure_network: whether requests may have been lost on their way to the receivers.
    """

    told: Told
    seen: Sequence[Received]
    stored: Mapping[str, Stored]
    streams: Mapping[UUID, Stream]
    outbox: int
    wiped: bool
    unsure_network: bool


def judge(records: Records) -> Iterator[str]:
    """Everything that should not be."""
    yield from records.told.protests
    if records.outbox:
        yield f"{records.outbox} messages are committed and not fanned out (2)"
    yield from _accepted_once(records)
    by_target = _by_target(records)
    message_of = _numbers(records)
    for target in records.told.targets:
        streams = by_target.get(target.id, [])
        yield from _due(target, streams, records, message_of)
        yield from broken(streams, schedule=len(target.retries))
        for stream in streams:
            yield from _timely(target, stream)
        yield from _as_sent(target, records)
        yield from _signed(target, records.seen)
        if target.exact:
            yield from _each_request_is_an_attempt(target, streams, records.seen)
    known = {target.id for target in records.told.targets}
    yield from (f"deliveries to an endpoint that nobody created: {other}" for other in by_target.keys() - known)
    yield from disagreements(
        records.streams.values(),
        _seen(records),
        {t.id: t.path for t in records.told.targets},
        every=not records.unsure_network,
    )


def orderly(records: Records) -> Iterator[str]:
    """What should not be where services have only been asked to stop: no outcome is lost by that."""
    for stream in records.streams.values():
        if any(isinstance(fact, AttemptOutcomeUnknown) for fact in stream):
            yield f"the outcome of {encode(Prefix.MESSAGE, fold(stream).message)} was lost by an orderly stop"


def duplicates(seen: Sequence[Received]) -> int:
    """How many requests told a receiver what it had already taken with a 2xx."""
    taken = Counter((_message(request), request.path) for request in seen if request.status and request.status < 300)
    return sum(count - 1 for count in taken.values())


def _accepted_once(records: Records) -> Iterator[str]:
    """Invariant 1: what a client saw 2xx for exists once, as it was sent; and so does what was insisted on."""
    told = records.told
    numbers = {sent.body: number for number, sent in told.sent.items()}
    times = Counter(stored.body for stored in records.stored.values())
    for number, ids in told.answered.items():
        if len(ids) > 1:
            yield f"message {number} was answered with several ids: {sorted(ids)} (1)"
        for identity in ids:
            stored = records.stored.get(identity)
            if stored is None:
                yield f"message {number} was answered 2xx as {identity}, which is not there (1)"
            elif stored.body != told.sent[number].body:
                yield f"message {number} is stored as {stored.body!r:.100}, not as it was sent (7)"
    for body, count in times.items():
        if body not in numbers:
            yield f"a message is stored that nobody sent: {body!r:.100} (1)"
        elif count > 1:
            yield f"message {numbers[body]} is stored {count} times (1)"
    for number, sent in told.sent.items():
        if sent.insisted and number not in told.answered and number not in told.confirmed:
            yield f"message {number} ({sent.way}): its sender was never told that it is taken"
        may_be_lost = not sent.insisted or (records.wiped and sent.way == "broker")
        if sent.body not in times and not may_be_lost:
            yield f"message {number} ({sent.way}) was taken and is not stored (1)"


def _due(target: Target, streams: Sequence[Stream], records: Records, numbers: Mapping[str, int]) -> Iterator[str]:
    """Every message that matches comes to the endpoint once, and none that came after it was disabled."""
    states = [fold(stream) for stream in streams]
    times = Counter(encode(Prefix.MESSAGE, state.message) for state in states)
    yield from (f"{target.path}: {message} has {count} deliveries" for message, count in times.items() if count > 1)
    ids = {number: message for message, number in numbers.items()}
    if target.fence:
        wanted: Collection[str] = {ids[number] for number in target.wanted if number in ids}
        unwanted = {ids[number] for number in target.unwanted if number in ids}
        for message in unwanted & times.keys():
            yield f"{target.path}: {message} was accepted after the endpoint was disabled, and came (fence)"
    else:
        wanted = {message for message, stored in records.stored.items() if stored.event_type == target.event_type}
    if target.behaviour is not Behaviour.GONE:
        for message in wanted - times.keys():
            yield f"{target.path}: message {numbers.get(message)} ({message}) was accepted, and has no delivery (fence)"
    for state in states:
        if state.status not in _ends(target):
            yield f"{target.path}: {encode(Prefix.MESSAGE, state.message)} ended as {state.status} (2)"


def _ends(target: Target) -> Collection[Status]:
    """How the deliveries to an endpoint may end."""
    match target.behaviour:
        case None:
            return {Status.SUCCEEDED}
        case Behaviour.GONE:
            return {Status.SUCCEEDED, Status.GONE, Status.CANCELLED, Status.EXHAUSTED}
        case _:
            return {Status.SUCCEEDED, Status.EXHAUSTED}


def _timely(target: Target, stream: Stream) -> Iterator[str]:
    """Times never run backwards, each retry is due when the schedule says, and none begins before it is due."""
    what = f"{target.path}: {encode(Prefix.MESSAGE, fold(stream).message)}"
    due: datetime | None = None
    before: DeliveryFact | None = None
    failures = 0
    for fact in stream:
        if before is not None and fact.at < before.at:
            yield f"{what}: {type(fact).__name__} at {fact.at}, before {type(before).__name__} at {before.at}"
        match fact:
            case AttemptEnded():
                failures += 1
            case DeliveryScheduled():
                due = fact.due_at
            case RetryScheduled():
                due = fact.due_at
                least, most = _waits(target, before, failures)
                if not least <= due - fact.at <= most:
                    yield f"{what}: waits {due - fact.at}, the schedule has {least} to {most} (3)"
            case AttemptStarted() if due is not None and fact.at < due - _MOMENT:
                yield f"{what}: an attempt began {due - fact.at} early (3)"
            case _:
                pass
        before = fact


def _waits(target: Target, ended: DeliveryFact | None, failures: int) -> tuple[timedelta, timedelta]:
    """The shortest and the longest wait after that end of an attempt; what was lost or not sent comes again at once."""
    if not isinstance(ended, AttemptEnded):
        return timedelta(0), _MOMENT
    base = timedelta(seconds=target.retries[failures - 1])
    asked = min(ended.retry_after or timedelta(0), _MOST_RETRY_AFTER)
    return base * (1 - _JITTER) - _MOMENT, max(base * (1 + _JITTER), asked) + _MOMENT


def _as_sent(target: Target, records: Records) -> Iterator[str]:
    """Invariant 7: what a receiver gets are the bytes that were accepted."""
    for request in records.seen:
        stored = records.stored.get(_message(request)) if request.path == target.path else None
        if stored is None:
            continue
        carried = (
            request.body.endswith(b',"data":' + stored.body + b"}") if target.exact else request.body == stored.body
        )
        if not carried:
            yield f"{target.path}: {_message(request)} came as {request.body!r:.150}, not as it was accepted (7)"


def _signed(target: Target, seen: Sequence[Received]) -> Iterator[str]:
    """Invariant 7: each request is signed anew, with the time at which it was sent."""
    verifier = Webhook(target.secret)
    for request in seen:
        if request.path != target.path:
            continue
        if target.exact:
            expected = "sha256=" + hmac_sha256(target.secret.encode(), request.body).hex()
            if request.headers.get("X-Webhook-Signature") != expected:
                yield f"{target.path}: {_message(request)} has a wrong signature (7)"
            continue
        signed_at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
        if abs(request.at - signed_at) > FRESH:
            yield f"{target.path}: {request.id} came at {request.at}, signed for {signed_at} (7)"
        if verifier.sign(request.id, signed_at, request.body.decode()) not in request.headers["webhook-signature"]:
            yield f"{target.path}: {request.id} has a wrong signature (7)"


def _each_request_is_an_attempt(target: Target, streams: Sequence[Stream], seen: Sequence[Received]) -> Iterator[str]:
    """Invariant 8, attempt by attempt: this profile tells the receiver which one it is."""
    sends: dict[str, int] = {}
    for stream in streams:
        for fact in stream:
            match fact:
                case AttemptStarted():
                    sends[encode(Prefix.ATTEMPT, fact.attempt)] = MOST_SENDS
                case AttemptEnded():
                    sends[encode(Prefix.ATTEMPT, fact.attempt)] = fact.sends
                case _:
                    pass
    came = Counter(request.headers["X-Webhook-Delivery"] for request in seen if request.path == target.path)
    for attempt, count in came.items():
        if attempt not in sends:
            yield f"{target.path}: {attempt} was seen, and is not in the ledger (8)"
        elif count > sends[attempt]:
            yield f"{target.path}: {attempt} was seen {count} times, the ledger has {sends[attempt]} sends (8)"


def _by_target(records: Records) -> dict[str, list[Stream]]:
    found: defaultdict[str, list[Stream]] = defaultdict(list)
    for stream in records.streams.values():
        first = stream[0]
        assert isinstance(first, DeliveryScheduled)
        found[encode(Prefix.ENDPOINT, first.endpoint)].append(stream)
    return found


def _numbers(records: Records) -> dict[str, int]:
    """The senders' numbers of the stored messages."""
    numbers = {sent.body: number for number, sent in records.told.sent.items()}
    return {message: numbers[stored.body] for message, stored in records.stored.items() if stored.body in numbers}


def _seen(records: Records) -> dict[tuple[str, str], Seen]:
    bodies: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
    statuses: defaultdict[tuple[str, str], list[int | None]] = defaultdict(list)
    for request in records.seen:
        key = _message(request), request.path
        bodies[key].append(request.body)
        statuses[key].append(request.status)
    return {key: Seen(bodies=tuple(bodies[key]), statuses=tuple(statuses[key])) for key in bodies}


def _message(request: Received) -> str:
    """The id of the message that a request carries, in whichever profile."""
    named = request.headers.get("webhook-id")
    return named if named is not None else str(json.loads(request.body)["id"])
