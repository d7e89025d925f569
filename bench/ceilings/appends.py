"""Ceiling: `unnest` appends of 256 rows into a table with a primary key alone; beside it, the ledger's own appends.

`python -m bench.ceilings.appends DATABASE_URL SECONDS`, in a database of its own that was migrated: what it writes is
half a story. All three take turns, a statement each, so that the disk's moods meet them alike.
"""

import json
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg
import uvloop

from libs.common.contracts import ledger
from libs.common.domain.commands import RecordAnswer, StartAttempt
from libs.common.domain.delivery import decide, evolve, scheduled, start
from libs.common.domain.endpoint import Rule
from libs.common.domain.facts import AttemptStarted, DeliveryScheduled, Timings
from libs.common.domain.ids import delivery_id
from libs.common.domain.outcome import Answer
from libs.common.domain.retry import RetryPolicy
from libs.common.postgres.ledger import Appended, append
from libs.common.postgres.migrate import epoch
from libs.common.postgres.pool import Connection, Pool, open_pool, transaction
from libs.common.runtime import clock
from services.dispatcher import projection, transitions
from services.dispatcher.transitions import Transition

ROWS: Final = 256
_RAW: Final = """
    CREATE TABLE IF NOT EXISTS public.raw (
        stream uuid, version integer, app uuid, endpoint uuid, kind text, schema smallint, at timestamptz, data bytea,
        PRIMARY KEY (stream, version)
    )
"""
_APPEND: Final = """
    INSERT INTO public.raw
    SELECT * FROM unnest($1::uuid[], $2::int[], $3::uuid[], $4::uuid[], $5::text[], $6::smallint[], $7::timestamptz[],
        $8::bytea[])
"""

_UNCLEANED: Final = """
    DO $$
    DECLARE
        item regclass;
    BEGIN
        FOR item IN
            SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_)'
        LOOP
            EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)', item);
        END LOOP;
    END $$
"""
"""Nobody cleans up after the appends: that would come later, and be counted as the cost of what is measured then."""


def begun(rows: int) -> list[tuple[UUID, DeliveryScheduled, AttemptStarted]]:
    """So many rows of new deliveries of one application, two each: scheduled, and their first attempt begun."""
    now, app, process = datetime.now(UTC), clock.new_id(), clock.new_id()
    found = []
    for _ in range(rows // 2):
        message, endpoint = clock.new_id(), clock.new_id()
        first = DeliveryScheduled(
            at=now, app=app, message=message, endpoint=endpoint, config_version=1, rule=Rule.ALL, due_at=now
        )
        command = StartAttempt(
            at=now, attempt=clock.new_id(), config_version=1, signing_key=clock.new_id(), process=process
        )
        started = start(scheduled(first), command)
        assert isinstance(started, AttemptStarted)
        found.append((delivery_id(message, endpoint), first, started))
    return sorted(found, key=lambda item: item[0])


def placed(stream: UUID, first: DeliveryScheduled, started: AttemptStarted) -> list[Appended]:
    """Both facts, at their places."""
    app, endpoint = first.app, first.endpoint
    return [
        Appended(stream=stream, version=1, app=app, endpoint=endpoint, fact=first),
        Appended(stream=stream, version=2, app=app, endpoint=endpoint, fact=started),
    ]


async def raw(connection: Connection) -> int:
    """The ceiling's append: encoded as the ledger's, and committed."""
    facts = [fact for item in begun(ROWS) for fact in placed(*item)]
    encoded = [ledger.encode(item.fact) for item in facts]
    columns = zip(
        *(
            (item.stream, item.version, item.app, item.endpoint, kind, schema, item.fact.at, data)
            for item, (kind, schema, data) in zip(facts, encoded, strict=True)
        ),
        strict=True,
    )
    await connection.execute(_APPEND, *map(list, columns))
    return ROWS


async def facts_only(pool: Pool, number: int) -> int:
    """The ledger's append."""
    facts = [fact for item in begun(ROWS) for fact in placed(*item)]
    async with transaction(pool) as connection:
        await append(connection, number, facts)
    return ROWS


async def with_projection(pool: Pool, number: int) -> int:
    """The ledger's append, with the projections that go with it: half a delivery's way in each transaction."""
    items = begun(ROWS)
    states = {stream: evolve(scheduled(first), started) for stream, first, started in items}
    async with transaction(pool) as connection:
        await append(connection, number, [fact for item in items for fact in placed(*item)])
        await projection.insert(connection, list(states.items()))
    changes = []
    for stream, _, started in items:
        answer = RecordAnswer(
            at=started.at,
            attempt=started.attempt,
            answer=Answer(status=200),
            policy=RetryPolicy(),
            jitter=0.0,
            url="http://127.0.0.1:9/",
            peer="127.0.0.1:9",
            sends=1,
            timings=Timings(total=timedelta(milliseconds=1)),
        )
        before = states[stream]
        changes.append(Transition.of(delivery=stream, before=before, facts=decide(before, answer), started=started))
    async with transaction(pool) as connection:
        await transitions.write_facts(connection, number, changes)
    return ROWS + sum(len(change.facts) for change in changes)


async def main(url: str, seconds: float) -> None:
    """Take turns, print the rows a second of each."""
    connection = await asyncpg.connect(url)
    await connection.execute(_RAW)
    await connection.execute(_UNCLEANED)
    number = await epoch(connection)
    assert number is not None, "the database was migrated"
    pool = await open_pool(url, "dispatcher", size=1)
    turns: dict[str, Callable[[], Awaitable[int]]] = {
        "raw": lambda: raw(connection),
        "facts": lambda: facts_only(pool, number),
        "projected": lambda: with_projection(pool, number),
    }
    rows, took = dict.fromkeys(turns, 0), dict.fromkeys(turns, 0.0)
    for turn in turns.values():
        await turn()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        for name, turn in turns.items():
            began = time.monotonic()
            rows[name] += await turn()
            took[name] += time.monotonic() - began
    await pool.close()
    await connection.close()
    print(json.dumps({name: rows[name] / took[name] for name in turns}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2])))
