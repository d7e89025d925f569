"""Attempts that touch no lane, begun and ended each in one statement, which is a transaction of its own.

What most deliveries come to, a first attempt with an end that is final, needs no lock that is taken before it is read:
its outbox row, or its state's version, is still what it was, or it is not written here. The rest goes the longer way.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from msgspec import Struct

from libs.common.contracts import ledger
from libs.common.domain.attempts import total_us
from libs.common.domain.delivery import Delivery, Status
from libs.common.domain.facts import AttemptEnded, AttemptStarted, DeliveryFact, DeliveryScheduled, MessageFannedOut
from libs.common.domain.outcome import Failure
from libs.common.postgres.pool import Pool
from libs.common.postgres.rows import Columns, Shared
from services.dispatcher.lease import Lease, LeaseLostError

_FENCE: Final = """
    fence AS MATERIALIZED (
        SELECT id FROM hookledger.process
        WHERE id = $1 AND epoch = $2 AND alive_until > clock_timestamp() FOR KEY SHARE
    )
"""
_MESSAGES: Final = Columns(message="uuid", fanned_out="bytea")
_BEGUN: Final = Columns(
    delivery="uuid", message="uuid", endpoint="uuid", attempt="uuid", scheduled="bytea", started="bytea"
)
_BEGIN: Final = f"""
    WITH {_FENCE}, locked AS (
        SELECT o.message FROM hookledger.outbox o, fence
        WHERE o.message = ANY($3) AND o.after_endpoint IS NULL ORDER BY o.message FOR UPDATE OF o
    ), taken AS (
        DELETE FROM hookledger.outbox o USING locked WHERE o.message = locked.message RETURNING o.message, o.app
    ), matched AS (
        INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
        SELECT u.message, 2, $5, taken.app, 'MessageFannedOut', $6, $7, u.fanned_out
        FROM {_MESSAGES.unnested("u", first=3)} JOIN taken USING (message)
    ), begun AS (
        SELECT u.*, taken.app FROM {_BEGUN.unnested("u", first=16)} JOIN taken USING (message)
    ), facts AS (
        INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
        SELECT b.delivery, f.version, $5, b.app, b.endpoint, f.kind, $6, $7, f.data
        FROM begun b CROSS JOIN LATERAL (
            VALUES (1, 'DeliveryScheduled', b.scheduled), (2, 'AttemptStarted', b.started)
        ) AS f (version, kind, data)
    ), states AS (
        INSERT INTO delivery_state (delivery, app, message, endpoint, attempt, status, version, run, attempts, failures,
            unknowns, process, created_at, updated_at)
        SELECT b.delivery, b.app, b.message, b.endpoint, b.attempt, $8, $9, $10, $11, $12, $13, $1, $14, $15
        FROM begun b
    ), queued AS (
        INSERT INTO hookledger.queue (delivery, lane, due_at, owner) SELECT delivery, endpoint, $7, $1 FROM begun
    )
    SELECT (SELECT count(*) FROM fence) AS held, array(SELECT message FROM taken) AS taken
"""  # noqa: S608  of constants


class FirstAttempt(Struct, frozen=True, kw_only=True, gc=False):
    """A delivery whose first attempt begins as it is scheduled, and its state then."""

    delivery: UUID
    state: Delivery
    scheduled: DeliveryScheduled
    started: AttemptStarted


async def begin(
    pool: Pool,
    lease: Lease,
    *,
    epoch: int,
    at: datetime,
    messages: Sequence[tuple[UUID, MessageFannedOut]],
    attempts: Sequence[FirstAttempt],
) -> AbstractSet[UUID]:
    """Fan out messages (id, fact) that are still to be, with their deliveries' first attempts.

    Args:
        pool: of the dispatcher.
        lease: under which the attempts begin.
        epoch: of the ledger.
        at: when all of it happens.
        messages: at least one.
        attempts: their deliveries.

    Returns:
        The messages that were still to be fanned out, from their first endpoint on. Of others nothing is written.

    Raises:
        LeaseLostError: nothing is written.
    """
    alike = attempts[0].state if attempts else None  # but for who they are
    row = await pool.fetchrow(
        _BEGIN,
        lease.process,
        lease.epoch,
        *_MESSAGES.arrays((message, ledger.encode(fact)[2]) for message, fact in messages),
        epoch,
        ledger.SCHEMA,
        at,
        *(getattr(alike, name, None) for name in _ALIKE),
        *_BEGUN.arrays(
            (
                first.delivery,
                first.state.message,
                first.state.endpoint,
                first.state.attempt,
                ledger.encode(first.scheduled)[2],
                ledger.encode(first.started)[2],
            )
            for first in attempts
        ),
    )
    assert row is not None, "it counts"
    if not row["held"]:
        raise LeaseLostError
    return frozenset(row["taken"])


_ALIKE: Final = ("status", "version", "run", "attempts", "failures", "unknowns", "created_at", "updated_at")
_ENDED: Final = Columns(
    delivery="uuid",
    attempt="uuid",
    at="timestamptz",
    signing_key="uuid",
    started_at="timestamptz",
    url="text",
    peer="text",
    total_us="bigint",
    ended="bytea",
    like_no="int",
)
_LIKE: Final = Columns(
    before="int",
    status="text",
    version="int",
    failures="int",
    last_status="smallint",
    config_version="int",
    result="text",
    failure="text",
    sends="smallint",
)


class _Like(NamedTuple):
    """What outcomes may have in common: the values of `_LIKE`."""

    before: int
    status: Status
    version: int
    failures: int
    last_status: int | None
    config_version: int
    result: str
    failure: Failure | None
    sends: int


_DECIDED: Final = Columns(delivery="uuid", version="int", kind="text", data="bytea")
_CONTENTS: Final = Columns(delivery="uuid", attempt="uuid", response="bytea", url_query="text")
_FIRST_DECIDED: Final = 5 + len(_ENDED) + len(_LIKE)
_END: Final = f"""
    WITH {_FENCE}, u AS MATERIALIZED (
        SELECT u.*, {_LIKE.picked("u.like_no", first=5 + len(_ENDED))} FROM {_ENDED.unnested("u", first=5)}
    ), over AS (
        UPDATE delivery_state d
        SET status = u.status, version = u.version, failures = u.failures, last_status = u.last_status,
            updated_at = u.at, unknowns = 0, attempt = NULL, process = NULL
        FROM u, fence
        WHERE d.delivery = u.delivery AND d.version = u.before
        RETURNING d.delivery, d.app, d.message, d.endpoint, d.run, d.attempts, d.updated_at
    ), facts AS (
        INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
        SELECT u.delivery, u.before + 1, $3::int, over.app, over.endpoint, 'AttemptEnded', $4::smallint, u.at, u.ended
        FROM u JOIN over USING (delivery)
        UNION ALL
        SELECT f.delivery, f.version, $3, over.app, over.endpoint, f.kind, $4, over.updated_at, f.data
        FROM {_DECIDED.unnested("f", first=_FIRST_DECIDED)} JOIN over USING (delivery)
    ), attempts AS (
        INSERT INTO attempt (delivery, attempt, app, message, endpoint, run, number, trigger, config_version,
            signing_key, process, result, status, failure, url, peer, sends, total_us, started_at, ended_at)
        SELECT u.delivery, u.attempt, over.app, over.message, over.endpoint, over.run, over.attempts, 'scheduled',
            u.config_version, u.signing_key, $1, u.result, u.last_status, u.failure, u.url, u.peer, u.sends,
            u.total_us, u.started_at, u.at
        FROM u JOIN over USING (delivery)
    ), contents AS (
        INSERT INTO hookledger.attempt_content (delivery, attempt, response, url_query)
        SELECT c.delivery, c.attempt, c.response, c.url_query
        FROM {_CONTENTS.unnested("c", first=_FIRST_DECIDED + len(_DECIDED))} JOIN over USING (delivery)
    ), left_queue AS (
        DELETE FROM hookledger.queue q USING over WHERE q.delivery = over.delivery
    )
    SELECT (SELECT count(*) FROM fence) AS held, array(SELECT delivery FROM over) AS over
"""  # noqa: S608  of constants


class LastAttempt(Struct, frozen=True, kw_only=True, gc=False):
    """A scheduled attempt whose end is its delivery's.

    `before` is the state while it was in flight, `after` the one that the facts lead to. `response` is what is kept of
    the answer's body, `url_query` what the ledger leaves out of the URL.
    """

    delivery: UUID
    before: Delivery
    facts: Sequence[DeliveryFact]
    after: Delivery
    started: AttemptStarted
    response: bytes
    url_query: str | None


async def end(pool: Pool, lease: Lease, *, epoch: int, attempts: Sequence[LastAttempt]) -> Collection[UUID]:
    """Record the ends of attempts, and with them of their deliveries, whose lanes do not count them.

    Args:
        pool: of the dispatcher.
        lease: under which the attempts began.
        epoch: of the ledger.
        attempts: at least one.

    Returns:
        The deliveries that were still in the state `before`. Of others nothing is written.

    Raises:
        LeaseLostError: nothing is written.
    """
    like: Shared[_Like] = Shared()
    ended_rows = _ENDED.arrays(_end_row(last, like) for last in attempts)
    row = await pool.fetchrow(
        _END,
        lease.process,
        lease.epoch,
        epoch,
        ledger.SCHEMA,
        *ended_rows,
        *_LIKE.arrays(like),
        *_DECIDED.arrays(
            (last.delivery, number, kind, data)
            for last in attempts
            for number, (kind, _, data) in enumerate(map(ledger.encode, last.facts[1:]), start=last.before.version + 2)
        ),
        *_CONTENTS.arrays(
            (last.delivery, last.started.attempt, last.response, last.url_query)
            for last in attempts
            if last.response or last.url_query
        ),
    )
    assert row is not None, "it counts"
    if not row["held"]:
        raise LeaseLostError
    over: list[UUID] = row["over"]
    return over


def _end_row(last: LastAttempt, like: Shared[_Like]) -> tuple[object, ...]:
    """The values of `_ENDED`, with those of `_LIKE` among the shared ones: `attempts.ended`, of what `over` lacks."""
    fact = last.facts[0]
    assert isinstance(fact, AttemptEnded)
    after, started = last.after, last.started
    return (
        last.delivery,
        fact.attempt,
        after.updated_at,
        started.signing_key,
        started.at,
        fact.url,
        fact.peer,
        total_us(fact),
        ledger.encode(fact)[2],
        like.number(
            _Like(
                last.before.version,
                after.status,
                after.version,
                after.failures,
                after.last_status,
                started.config_version,
                fact.outcome,
                fact.failure,
                fact.sends,
            )
        ),
    )
