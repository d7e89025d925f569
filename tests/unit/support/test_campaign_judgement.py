"""The verdict on a round: it finds what it is there to find, and nothing where nothing is."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from standardwebhooks.webhooks import Webhook

from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import (
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    DeliveryFact,
    DeliveryScheduled,
    RetryScheduled,
    Timings,
    Trigger,
)
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Outcome
from tests.faults.campaign.judgement import Records, Stored, duplicates, judge, orderly
from tests.faults.campaign.load import LOAD
from tests.faults.campaign.told import Sent, Target, Told
from tests.support.receiver import Received

AT = datetime(2026, 11, 25, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
APP, MESSAGE, ENDPOINT, DELIVERY, PROCESS = (UUID(int=number) for number in range(1, 6))
ATTEMPTS = [UUID(int=number) for number in range(10, 20)]
SECRET = "whsec_" + "c2VjcmV0" * 4
BODY = b'{ "n": 1 }'
ID = encode(Prefix.MESSAGE, MESSAGE)


def scheduled() -> DeliveryScheduled:
    return DeliveryScheduled(
        at=AT, app=APP, message=MESSAGE, endpoint=ENDPOINT, config_version=1, rule=Rule.ALL, due_at=AT
    )


def started(number: int, at: datetime) -> AttemptStarted:
    return AttemptStarted(
        at=at, attempt=ATTEMPTS[number], run=1, number=number, trigger=Trigger.SCHEDULED, config_version=1,
        signing_key=None, process=PROCESS,
    )  # fmt: skip


def ended(number: int, at: datetime, *, status: int = 200) -> AttemptEnded:
    outcome = Outcome.SUCCEEDED if status == 200 else Outcome.RETRYABLE
    return AttemptEnded(
        at=at, attempt=ATTEMPTS[number], outcome=outcome, status=status, failure=None, url="http://r/", peer=None,
        sends=1, timings=Timings(), base_delay=None, jitter=None, retry_after=None,
    )  # fmt: skip


def received(*, at: datetime = AT, body: bytes = BODY, status: int | None = 200) -> Received:
    headers = {
        "webhook-id": ID,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(ID, at, body.decode()),
    }
    return Received(
        path="/1/steady", query="", headers=CIMultiDictProxy(CIMultiDict(headers)), body=body, at=at, status=status
    )


STREAM: list[DeliveryFact] = [
    scheduled(),
    started(1, AT),
    ended(1, AT + SECOND, status=503),
    RetryScheduled(at=AT + SECOND, due_at=AT + 2 * SECOND),
    started(2, AT + 2 * SECOND),
    ended(2, AT + 3 * SECOND),
]


def records() -> Records:
    """A round of one message, which was delivered on the second attempt."""
    told = Told(app=encode(Prefix.APPLICATION, APP))
    told.sent[1] = Sent(event_type=LOAD, body=BODY, way="api")
    told.answered[1].add(ID)
    told.targets.append(
        Target(
            id=encode(Prefix.ENDPOINT, ENDPOINT), path="/1/steady", secret=SECRET, event_type=LOAD, retries=(1.0, 2.0)
        )
    )
    return Records(
        told=told,
        seen=[received(status=503), received(at=AT + 2 * SECOND)],
        stored={ID: Stored(event_type=LOAD, body=BODY)},
        streams={DELIVERY: STREAM},
        outbox=0,
        wiped=False,
        unsure_network=False,
    )


def test_a_round_in_which_all_went_well_has_no_violation() -> None:
    assert list(judge(records())) == []


def changed(**fields: object) -> Callable[[], Records]:
    return lambda: replace(records(), **fields)  # type: ignore[arg-type]


def told_twice() -> Records:
    found = records()
    found.told.answered[1].add(encode(Prefix.MESSAGE, UUID(int=99)))
    return found


def fence() -> Records:
    found = records()
    found.told.targets[0].fence = True
    found.told.targets[0].unwanted.append(1)
    return found


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (changed(stored={}), "was answered 2xx as"),
        (told_twice, "answered with several ids"),
        (changed(stored={ID: Stored(event_type=LOAD, body=b'{"n":1}')}), "not as it was sent (7)"),
        (
            changed(stored={ID: Stored(event_type=LOAD, body=BODY), "msg_2": Stored(event_type=LOAD, body=BODY)}),
            "is stored 2 times (1)",
        ),
        (changed(outbox=3), "3 messages are committed and not fanned out"),
        (changed(streams={}), "has no delivery"),
        (changed(streams={DELIVERY: STREAM[:5]}), "ended as sending (2)"),
        (changed(streams={DELIVERY: [*STREAM, started(3, AT + 9 * SECOND)]}), "AttemptStarted after succeeded (4)"),
        (
            changed(streams={DELIVERY: [*STREAM[:4], started(2, AT + SECOND), ended(2, AT + 3 * SECOND)]}),
            "an attempt began 0:00:01 early",
        ),
        (
            changed(
                streams={DELIVERY: [*STREAM[:3], RetryScheduled(at=AT + SECOND, due_at=AT + 61 * SECOND), *STREAM[4:]]}
            ),
            "waits 0:01:00",
        ),
        (changed(seen=[received(status=503)]), "the receiver has no 2xx (8)"),
        (changed(seen=[*records().seen, received()]), "seen 3 times, the ledger has 2 sends"),
        (
            changed(seen=[replace(received(), status=503), replace(received(at=AT), at=AT + timedelta(hours=1))]),
            "signed for",
        ),
        (fence, "accepted after the endpoint was disabled, and came"),
    ],
)
def test_a_round_in_which_something_went_wrong_has_a_violation(found: Callable[[], Records], says: str) -> None:
    said = list(judge(found()))
    assert any(says in text for text in said), said


def test_a_request_that_a_receiver_had_taken_already_is_a_duplicate() -> None:
    assert duplicates([received(status=503), received(), received()]) == 1


def test_an_orderly_stop_loses_no_outcome() -> None:
    assert list(orderly(records())) == []
    unknown = [*STREAM[:2], AttemptOutcomeUnknown(at=AT + SECOND, attempt=ATTEMPTS[1]), *STREAM[3:]]
    assert "lost by an orderly stop" in next(orderly(replace(records(), streams={DELIVERY: unknown})))


def test_an_attempt_of_unknown_outcome_may_have_been_sent_twice_and_not_three_times() -> None:
    """Seed 1, round 24: a receiver reset a kept connection, the send was repeated, and then its process was killed."""
    stream = [
        *STREAM[:2],
        AttemptOutcomeUnknown(at=AT + SECOND, attempt=ATTEMPTS[1]),
        RetryScheduled(at=AT + SECOND, due_at=AT + SECOND),
        *STREAM[4:],
    ]
    unanswered = received(status=None)
    twice = replace(records(), streams={DELIVERY: stream}, seen=[unanswered, unanswered, received(at=AT + 2 * SECOND)])
    assert list(judge(twice)) == []
    assert any("(8)" in text for text in judge(replace(twice, seen=[unanswered, *twice.seen])))
