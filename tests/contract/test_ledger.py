"""The ledger's bytes, schema 1: frozen. Rows written today must be readable, and mean the same, for years.

A test that fails here says that stored data would read differently: raise the schema number and add an upcaster, and
leave the bytes below as they are.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import fields

from libs.common.contracts import ledger
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import (
    AttemptAbandoned,
    AttemptEnded,
    AttemptOutcomeUnknown,
    AttemptStarted,
    CancelReason,
    DeliveryCancelled,
    DeliveryExhausted,
    DeliveryExpired,
    DeliveryGone,
    DeliveryHeld,
    DeliveryRefused,
    DeliveryReopened,
    DeliveryScheduled,
    DeliverySkipped,
    DropReason,
    Fact,
    MessageAccepted,
    MessageFannedOut,
    Origin,
    ResendDelayed,
    ResendDropped,
    ResendRequested,
    RetryScheduled,
    Timings,
    Trigger,
)
from libs.common.domain.outcome import Failure, Outcome

AT = datetime(2026, 8, 21, 10, 0, 0, 123456, tzinfo=UTC)
DUE = datetime(2026, 8, 21, 10, 0, 5, 678901, tzinfo=UTC)
STREAM, APP, ENDPOINT, MESSAGE = (UUID(int=number) for number in range(1, 5))
ATTEMPT = UUID("01a02361-b17b-7004-8203-040506070809")
PROCESS = UUID("01a02361-ad93-7004-8203-040506070809")
KEY = UUID("01a02361-0000-7004-8203-040506070809")


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A fact and the bytes that it is stored as."""

    fact: Fact
    data: bytes


GOLDEN = [
    Golden(
        fact=MessageAccepted(
            at=AT,
            event_type="payment_intent.succeeded",
            origin=Origin.SOURCE,
            source=KEY,
            registry_version=42,
            publish=True,
        ),
        data=b'{"event_type":"payment_intent.succeeded","origin":"source",'
        b'"source":"01a02361-0000-7004-8203-040506070809","registry_version":42,"publish":true}',
    ),
    Golden(
        fact=MessageAccepted(
            at=AT, event_type="order.completed", origin=Origin.API, source=None, registry_version=0, publish=False
        ),
        data=b'{"event_type":"order.completed","origin":"api","source":null,"registry_version":0,"publish":false}',
    ),
    Golden(
        fact=MessageFannedOut(at=AT, registry_version=43, counts={Rule.ALL: 2, Rule.OTHER_EVENT_TYPE: 1}),
        data=b'{"registry_version":43,"counts":{"all":2,"other_event_type":1}}',
    ),
    Golden(
        fact=DeliveryScheduled(
            at=AT,
            app=APP,
            message=MESSAGE,
            endpoint=ENDPOINT,
            config_version=7,
            rule=Rule.EVENT_TYPE_AND_CHANNEL,
            due_at=DUE,
        ),
        data=b'{"message":"00000000-0000-0000-0000-000000000004","config_version":7,'
        b'"rule":"event_type_and_channel","due_at":"2026-08-21T10:00:05.678901Z"}',
    ),
    Golden(
        fact=AttemptStarted(
            at=AT,
            attempt=ATTEMPT,
            run=1,
            number=2,
            trigger=Trigger.SCHEDULED,
            config_version=7,
            signing_key=KEY,
            process=PROCESS,
        ),
        data=b'{"attempt":"01a02361-b17b-7004-8203-040506070809","run":1,"number":2,"trigger":"scheduled",'
        b'"config_version":7,"signing_key":"01a02361-0000-7004-8203-040506070809",'
        b'"process":"01a02361-ad93-7004-8203-040506070809"}',
    ),
    Golden(
        fact=AttemptEnded(
            at=AT,
            attempt=ATTEMPT,
            outcome=Outcome.RETRYABLE,
            status=503,
            failure=None,
            url="https://example.com/hooks",
            peer="93.184.215.14",
            sends=2,
            timings=Timings(
                dns=timedelta(microseconds=1500),
                connect=timedelta(milliseconds=20),
                tls=timedelta(milliseconds=31),
                first_byte=timedelta(milliseconds=250),
                total=timedelta(milliseconds=251),
            ),
            base_delay=timedelta(minutes=5),
            jitter=-0.25,
            retry_after=timedelta(hours=1),
        ),
        data=b'{"attempt":"01a02361-b17b-7004-8203-040506070809","outcome":"retryable","status":503,"failure":null,'
        b'"url":"https://example.com/hooks","peer":"93.184.215.14","sends":2,'
        b'"timings":{"dns":"PT0.0015S","connect":"PT0.02S","tls":"PT0.031S","first_byte":"PT0.25S",'
        b'"total":"PT0.251S"},"base_delay":"PT300S","jitter":-0.25,"retry_after":"PT3600S"}',
    ),
    Golden(
        fact=AttemptEnded(
            at=AT,
            attempt=ATTEMPT,
            outcome=Outcome.RETRYABLE,
            status=None,
            failure=Failure.TIMEOUT,
            url="https://example.com/hooks",
            peer=None,
            sends=0,
            timings=Timings(),
            base_delay=None,
            jitter=None,
            retry_after=None,
        ),
        data=b'{"attempt":"01a02361-b17b-7004-8203-040506070809","outcome":"retryable","status":null,'
        b'"failure":"timeout","url":"https://example.com/hooks","peer":null,"sends":0,'
        b'"timings":{"dns":null,"connect":null,"tls":null,"first_byte":null,"total":"P0D"},'
        b'"base_delay":null,"jitter":null,"retry_after":null}',
    ),
    Golden(
        fact=AttemptAbandoned(at=AT, attempt=ATTEMPT),
        data=b'{"attempt":"01a02361-b17b-7004-8203-040506070809"}',
    ),
    Golden(
        fact=AttemptOutcomeUnknown(at=AT, attempt=ATTEMPT),
        data=b'{"attempt":"01a02361-b17b-7004-8203-040506070809"}',
    ),
    Golden(fact=RetryScheduled(at=AT, due_at=DUE), data=b'{"due_at":"2026-08-21T10:00:05.678901Z"}'),
    Golden(fact=DeliveryExhausted(at=AT), data=b"{}"),
    Golden(fact=DeliveryRefused(at=AT), data=b"{}"),
    Golden(fact=DeliveryGone(at=AT), data=b"{}"),
    Golden(fact=DeliveryHeld(at=AT), data=b"{}"),
    Golden(
        fact=DeliveryCancelled(at=AT, reason=CancelReason.ENDPOINT_DISABLED), data=b'{"reason":"endpoint_disabled"}'
    ),
    Golden(
        fact=DeliverySkipped(at=AT, actor="key:01a02361-0000-7004-8203-040506070809"),
        data=b'{"actor":"key:01a02361-0000-7004-8203-040506070809"}',
    ),
    Golden(fact=DeliveryExpired(at=AT), data=b"{}"),
    Golden(
        fact=DeliveryReopened(at=AT, run=2, due_at=DUE, job=KEY),
        data=b'{"run":2,"due_at":"2026-08-21T10:00:05.678901Z","job":"01a02361-0000-7004-8203-040506070809"}',
    ),
    Golden(fact=ResendRequested(at=AT, job=KEY), data=b'{"job":"01a02361-0000-7004-8203-040506070809"}'),
    Golden(fact=ResendDelayed(at=AT), data=b"{}"),
    Golden(fact=ResendDropped(at=AT, reason=DropReason.OUTCOME_UNKNOWN), data=b'{"reason":"outcome_unknown"}'),
]
EACH = pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: type(golden.fact).__name__)


def decoded(golden: Golden, **columns: Any) -> Fact:
    """The fact in the row of the ledger that the golden fact stands in, with other columns where they are given."""
    row: dict[str, Any] = {
        "kind": type(golden.fact).__name__,
        "schema": 1,
        "data": golden.data,
        "at": AT,
        "app": APP,
        "endpoint": ENDPOINT if isinstance(golden.fact, DeliveryScheduled) else None,
    }
    return ledger.decode(**row | columns)


# The frozen bytes


@EACH
def test_a_fact_is_stored_as_exactly_these_bytes(golden: Golden) -> None:
    assert ledger.encode(golden.fact) == (type(golden.fact).__name__, 1, golden.data)


@EACH
def test_the_stored_bytes_are_read_as_that_fact(golden: Golden) -> None:
    assert decoded(golden) == golden.fact


def test_every_kind_of_fact_has_its_frozen_bytes() -> None:
    covered = {type(golden.fact) for golden in GOLDEN}
    assert covered == set(get_args(Fact))
    assert {kind.__name__ for kind in covered} == ledger.KINDS


WORDS = {
    Rule: [
        "all",
        "channel",
        "disabled",
        "event_type",
        "event_type_and_channel",
        "filter",
        "filter_failed",
        "filter_too_costly",
        "filtered_out",
        "other_channel",
        "other_event_type",
        "requested",
    ],
    Origin: ["api", "broker", "example", "operational", "source"],
    Trigger: ["manual", "scheduled"],
    Outcome: ["gone", "refused", "retryable", "succeeded"],
    Failure: [
        "address_refused",
        "configuration_error",
        "connect_failed",
        "connection_reset",
        "dns_failed",
        "protocol_error",
        "timeout",
        "tls_failed",
        "transformation_failed",
    ],
    CancelReason: ["content_erased", "endpoint_deleted", "endpoint_disabled", "never_scheduled"],
    DropReason: ["content_erased", "endpoint_deleted", "endpoint_disabled", "outcome_unknown"],
}


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words.__name__)
def test_the_words_inside_facts_may_grow_in_number_but_never_change(
    words: type[Rule | Origin | Trigger | Outcome | Failure | CancelReason | DropReason],
) -> None:
    assert sorted(words) == WORDS[words]


# What stands in columns


@EACH
def test_what_the_ledger_has_a_column_for_is_not_in_the_data(golden: Golden) -> None:
    stored = msgspec.json.decode(golden.data)
    assert not {"at", "app", "endpoint"} & set(stored)
    columns = {"at", "app", "endpoint"} & {field.name for field in fields(golden.fact)}
    assert set(stored) | columns == {field.name for field in fields(golden.fact)}


def test_a_fact_takes_its_time_and_owner_from_the_columns() -> None:
    [golden] = [golden for golden in GOLDEN if isinstance(golden.fact, DeliveryScheduled)]
    moved = decoded(golden, at=DUE, app=MESSAGE, endpoint=STREAM)
    assert isinstance(moved, DeliveryScheduled)
    assert (moved.at, moved.app, moved.endpoint) == (DUE, MESSAGE, STREAM)


# Versions


@pytest.mark.parametrize(
    "newer", [{"kind": "DeliveryTeleported"}, {"schema": ledger.SCHEMA + 1}], ids=["kind", "schema"]
)
def test_what_a_newer_version_wrote_is_refused_rather_than_guessed(newer: dict[str, Any]) -> None:
    [golden] = [golden for golden in GOLDEN if isinstance(golden.fact, DeliveryExpired)]
    with pytest.raises(ledger.UnknownFactError, match="newer version"):
        decoded(golden, **newer)


def test_every_older_schema_number_has_its_upcaster() -> None:
    steps = {(kind, number) for kind in ledger.KINDS for number in range(1, ledger.SCHEMA)}
    assert steps <= set(ledger._UPCASTERS)
