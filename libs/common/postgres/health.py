"""Endpoint health, kept by following the ledger: each attempt is folded once, in the ledger's order.

A batch of facts is folded in the transaction that moves the checkpoint, so that it makes no difference who follows and
when they die.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from msgspec import Struct

from libs.common.domain.facts import AttemptEnded, AttemptStarted
from libs.common.domain.health import Ended, Failed, Health, Succeeded, fold
from libs.common.domain.outcome import Outcome
from libs.common.postgres.checkpoint import BEGINNING, Checkpoint, Cursor
from libs.common.postgres.following import ReadOn, read_on
from libs.common.postgres.ledger import Appended, appended
from libs.common.postgres.pool import Connection, Pool
from libs.common.postgres.rows import Columns

FOLLOWER: Final = "health"
BATCH: Final = 5_000
KINDS: Final = (AttemptEnded.__name__,)
COLUMNS: Final = Health.__struct_fields__
_NAMES: Final = ", ".join(("endpoint", "app", *COLUMNS))
BEHIND: Final = timedelta(minutes=1)
"""When the next fact is older than this, health is of the past, and nothing may follow from it."""

Key = tuple[UUID, UUID]
"""Application and endpoint."""


class Row(NamedTuple):
    """What is known of an endpoint's health."""

    app: UUID
    health: Health


class _Batch(Struct, frozen=True, kw_only=True):
    """What the next facts say, by endpoint; how many they are, and the place of the last of them."""

    facts: int
    last: Cursor
    attempts: Mapping[Key, Sequence[Ended]]


async def count(connection: Connection, checkpoint: Checkpoint, read_on: ReadOn = read_on) -> int:
    """Fold the next facts, in a transaction of their own; how many there were. `BATCH` or more: there may be more.

    None are folded while another process owns the checkpoint.
    """
    async with connection.transaction():
        cursor = await checkpoint.own(connection)
        if cursor is None:
            return 0
        batch = await _next(connection, cursor, read_on)
        if batch.facts:
            known = await read(connection, [endpoint for _, endpoint in batch.attempts])
            await _write(connection, _folded({endpoint: row.health for endpoint, row in known.items()}, batch.attempts))
            await checkpoint.move(connection, batch.last)
    return batch.facts


async def forget(connection: Connection, checkpoint: Checkpoint) -> None:
    """Fold again from the first fact behind the baseline: takes the checkpoint, in the caller's transaction."""
    await checkpoint.rewind(connection, await _baseline(connection))
    await connection.execute(f"""
        DELETE FROM projection_1.endpoint_health;
        INSERT INTO projection_1.endpoint_health ({_NAMES}) SELECT {_NAMES} FROM hookledger.baseline_health;
    """)  # noqa: S608  of constants


async def keep_baseline(connection: Connection) -> None:
    """From now on, health is folded on what it is now: nobody needs what lies before the checkpoint any more.

    In a transaction, in which nobody folds on.
    """
    row = await connection.fetchrow(
        "SELECT epoch, xact, position FROM hookledger.checkpoint WHERE follower = $1 FOR UPDATE", FOLLOWER
    )
    await connection.execute(f"""
        DELETE FROM hookledger.baseline_health;
        INSERT INTO hookledger.baseline_health ({_NAMES}) SELECT {_NAMES} FROM projection_1.endpoint_health;
    """)  # noqa: S608  of constants
    await connection.execute(
        """
        INSERT INTO hookledger.baseline (epoch, xact, position) VALUES ($1, $2, $3)
        ON CONFLICT (alone) DO UPDATE
        SET epoch = excluded.epoch, xact = excluded.xact, position = excluded.position
        """,
        *(BEGINNING if row is None else Cursor(*row)),
    )


async def _baseline(connection: Connection) -> Cursor:
    row = await connection.fetchrow("SELECT epoch, xact, position FROM hookledger.baseline")
    return BEGINNING if row is None else Cursor(*row)


async def fold_until(connection: Connection, until: Cursor) -> dict[UUID, Row]:
    """The health of all endpoints, folded from the baseline up to and including the fact at `until`."""
    cursor = await _baseline(connection)
    known = await connection.fetch(f"SELECT {_NAMES} FROM hookledger.baseline_health")  # noqa: S608  of constants
    folded: dict[UUID, Health] = {row["endpoint"]: row_of(row).health for row in known}
    apps: dict[UUID, UUID] = {row["endpoint"]: row["app"] for row in known}
    while True:
        batch = await _next(connection, cursor, partial(read_on, until=until))
        folded |= {endpoint: health for (_, endpoint), health in _folded(folded, batch.attempts).items()}
        apps |= {endpoint: app for app, endpoint in batch.attempts}
        if batch.facts < BATCH:
            return {endpoint: Row(app=apps[endpoint], health=health) for endpoint, health in folded.items()}
        cursor = batch.last


async def read(connection: "Connection | Pool", endpoints: Collection[UUID]) -> dict[UUID, Row]:
    """The health of these endpoints; there is none of those that nothing was sent to."""
    rows = await connection.fetch(
        """
        SELECT endpoint, app, config_version, failures, failing_since, gone_at, last_success_at, last_failure_at,
            latency_day, latencies, latencies_before
        FROM projection_1.endpoint_health WHERE endpoint = ANY($1)
        """,
        list(endpoints),
    )
    return {row["endpoint"]: row_of(row) for row in rows}


async def current(connection: "Connection | Pool") -> bool:
    """Whether health has come to the present: it has not where it is made anew, or where its follower is away.

    In a transaction at repeatable read, or in one that nobody who rewinds can overtake, it holds for what is read next.
    """
    is_current: bool = await connection.fetchval(
        """
        SELECT NOT EXISTS (
            SELECT FROM hookledger.checkpoint c CROSS JOIN LATERAL (
                SELECT f.at FROM hookledger.fact f
                WHERE hookledger.is_followed(f.kind, f.data)
                    AND (f.epoch, f.xact, f.position) > (c.epoch, c.xact, c.position)
                ORDER BY f.epoch, f.xact, f.position LIMIT 1
            ) next
            WHERE c.follower = $1 AND next.at < clock_timestamp() - $2::interval
        )
        """,
        FOLLOWER,
        BEHIND,
    )
    return is_current


def row_of(row: asyncpg.Record) -> Row:
    """The health that a row holds."""
    values = {name: row[name] for name in COLUMNS}
    values |= {name: tuple(values[name]) for name in ("latencies", "latencies_before")}
    return Row(app=row["app"], health=Health(**values))


def _folded(known: Mapping[UUID, Health], attempts: Mapping[Key, Sequence[Ended]]) -> dict[Key, Health]:
    return {key: fold(ended, known.get(key[1], Health())) for key, ended in attempts.items()}


async def _next(connection: Connection, cursor: Cursor, read_on: ReadOn) -> _Batch:
    """The next `BATCH` facts after `cursor`."""
    batch = await read_on(connection, cursor, kinds=KINDS, most=BATCH)
    ended = batch.found
    versions = await _config_versions(connection, [item for item in ended if not _succeeded(item)])
    attempts: dict[Key, list[Ended]] = defaultdict(list)
    for item in ended:
        if item.endpoint is not None:
            version = versions.get((item.stream, item.version), 0)
            attempts[item.app, item.endpoint].append(_attempt(item, version))
    return _Batch(facts=batch.facts, last=batch.last, attempts=attempts)


async def _config_versions(connection: Connection, failed: Sequence[Appended]) -> dict[tuple[UUID, int], int]:
    """With which configuration these attempts began, by the places of their ends."""
    if not failed:
        return {}
    rows = await connection.fetch(
        """
        SELECT u.version AS ended, s.stream, s.version, s.app, s.endpoint, s.kind, s.schema, s.at, s.data
        FROM unnest($1::uuid[], $2::int[]) AS u (stream, version)
        CROSS JOIN LATERAL (
            SELECT * FROM hookledger.fact f
            WHERE f.stream = u.stream AND f.version < u.version AND f.kind = 'AttemptStarted'
            ORDER BY f.version DESC LIMIT 1
        ) s
        """,
        [item.stream for item in failed],
        [item.version for item in failed],
    )
    found = {(row["stream"], row["ended"]): appended(row).fact for row in rows}
    return {place: fact.config_version for place, fact in found.items() if isinstance(fact, AttemptStarted)}


def _succeeded(item: Appended) -> bool:
    return isinstance(item.fact, AttemptEnded) and item.fact.outcome is Outcome.SUCCEEDED


def _attempt(item: Appended, config_version: int) -> Ended:
    fact = item.fact
    assert isinstance(fact, AttemptEnded)
    latency = fact.timings.total if fact.status is not None else None
    if fact.outcome is Outcome.SUCCEEDED:
        return Succeeded(at=fact.at, latency=latency)
    return Failed(at=fact.at, latency=latency, config_version=config_version, gone=fact.outcome is Outcome.GONE)


_WRITTEN: Final = Columns(
    app="uuid",
    endpoint="uuid",
    config_version="int",
    failures="int",
    failing_since="timestamptz",
    gone_at="timestamptz",
    last_success_at="timestamptz",
    last_failure_at="timestamptz",
    latency_day="date",
    latencies="text",
    latencies_before="text",
)
_WRITE: Final = f"""
    INSERT INTO projection_1.endpoint_health (app, endpoint, config_version, failures, failing_since, gone_at,
        last_success_at, last_failure_at, latency_day, latencies, latencies_before)
    SELECT app, endpoint, config_version, failures, failing_since, gone_at, last_success_at, last_failure_at,
        latency_day, latencies::bigint[], latencies_before::bigint[]
    FROM {_WRITTEN.unnested("u", first=1)}
    ON CONFLICT (endpoint) DO UPDATE SET
        config_version = excluded.config_version, failures = excluded.failures,
        failing_since = excluded.failing_since, gone_at = excluded.gone_at,
        last_success_at = excluded.last_success_at, last_failure_at = excluded.last_failure_at,
        latency_day = excluded.latency_day, latencies = excluded.latencies,
        latencies_before = excluded.latencies_before
"""  # noqa: S608  of constants


async def _write(connection: Connection, rows: Mapping[Key, Health]) -> None:
    """In one statement: one for each row costs twice as much where every attempt is another endpoint's."""
    await connection.execute(_WRITE, *_WRITTEN.arrays(_written(key, health) for key, health in rows.items()))


def _written(key: Key, health: Health) -> tuple[object, ...]:
    """The values of `_WRITTEN`."""
    latencies, before = (f"{{{str(counts)[1:-1]}}}" for counts in (health.latencies, health.latencies_before))
    return (
        *key,
        health.config_version,
        health.failures,
        health.failing_since,
        health.gone_at,
        health.last_success_at,
        health.last_failure_at,
        health.latency_day,
        latencies,
        before,
    )
