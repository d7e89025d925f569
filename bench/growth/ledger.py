"""A ledger of many rows: what was delivered so far, again and again, at the times of the week before."""

from collections.abc import Callable, Iterator
from typing import Final

from bench.volume import Sql

WEEK_MS: Final = 7 * 24 * 3600 * 1000

# An id begins with 48 bits of milliseconds; the rest of it stays, and no two copies are the same. Postgres writes such
# functions out in the place of each call, which one that is less stable than it says would keep it from.
_LATER: Final = """
    CREATE OR REPLACE FUNCTION pg_temp.later(id uuid, ms bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
        SELECT (lpad(to_hex(('x' || left(id::text, 8) || substr(id::text, 10, 4))::bit(48)::bigint + ms), 12, '0')
            || substr(id::text, 14))::uuid
    $$;
    CREATE OR REPLACE FUNCTION pg_temp.later(at timestamptz, ms bigint) RETURNS timestamptz STABLE LANGUAGE sql AS $$
        SELECT at + ms * interval '1 ms'
    $$;
"""
_TEMPLATES: Final = """
    CREATE TEMP TABLE known_fact AS SELECT * FROM hookledger.fact ORDER BY position;
    CREATE TEMP TABLE known_message AS SELECT * FROM hookledger.message ORDER BY id;
    CREATE TEMP TABLE known_body AS SELECT * FROM hookledger.message_body ORDER BY message;
    CREATE TEMP TABLE known_state AS SELECT * FROM projection_1.delivery_state ORDER BY delivery;
    CREATE TEMP TABLE known_attempt AS SELECT * FROM projection_1.attempt ORDER BY delivery, attempt;
    CREATE TEMP TABLE known_content AS SELECT * FROM hookledger.attempt_content ORDER BY delivery, attempt;
"""
# $1 is by how many milliseconds everything was later.
_COPIES: Final = (
    """
    INSERT INTO hookledger.message (id, org, app, event_type, channels, event_id, origin, source, ordering_key,
        content_type, body_hash, body_bytes, registry_version, publish, accepted_at, schema_violations, tags,
        deliver_at)
    SELECT pg_temp.later(id, $1::bigint), org, app, event_type, channels, event_id, origin, source, ordering_key,
        content_type, body_hash, body_bytes, registry_version, publish, pg_temp.later(accepted_at, $1::bigint),
        schema_violations, tags, pg_temp.later(deliver_at, $1::bigint)
    FROM known_message
    """,
    """
    INSERT INTO hookledger.message_body (message, salt, body)
    SELECT pg_temp.later(message, $1::bigint), salt, body FROM known_body
    """,
    """
    INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
    SELECT pg_temp.later(stream, $1::bigint), version, epoch, app, endpoint, kind, schema,
        pg_temp.later(at, $1::bigint), data
    FROM known_fact
    """,
    """
    INSERT INTO projection_1.delivery_state (delivery, app, message, endpoint, status, version, run, attempts,
        failures, unknowns, attempt, process, last_status, due_at, created_at, updated_at, resend_at, beside,
        reopened_at)
    SELECT pg_temp.later(delivery, $1::bigint), app, pg_temp.later(message, $1::bigint), endpoint, status, version,
        run, attempts, failures, unknowns, pg_temp.later(attempt, $1::bigint), process, last_status,
        pg_temp.later(due_at, $1::bigint), pg_temp.later(created_at, $1::bigint),
        pg_temp.later(updated_at, $1::bigint), pg_temp.later(resend_at, $1::bigint), beside,
        pg_temp.later(reopened_at, $1::bigint)
    FROM known_state
    """,
    """
    INSERT INTO projection_1.attempt (delivery, attempt, app, message, endpoint, run, number, trigger, config_version,
        signing_key, process, result, status, failure, url, peer, sends, total_us, started_at, ended_at)
    SELECT pg_temp.later(delivery, $1::bigint), pg_temp.later(attempt, $1::bigint), app,
        pg_temp.later(message, $1::bigint), endpoint, run, number, trigger, config_version, signing_key, process,
        result, status, failure, url, peer, sends, total_us, pg_temp.later(started_at, $1::bigint),
        pg_temp.later(ended_at, $1::bigint)
    FROM known_attempt
    """,
    """
    INSERT INTO hookledger.attempt_content (delivery, attempt, response, url_query, erased)
    SELECT pg_temp.later(delivery, $1::bigint), pg_temp.later(attempt, $1::bigint), response, url_query, erased
    FROM known_content
    """,
)
_FOLLOWED: Final = """
    UPDATE hookledger.checkpoint c SET epoch = f.epoch, xact = f.xact, position = f.position
    FROM (
        SELECT epoch, xact, position FROM hookledger.fact WHERE hookledger.is_followed(kind, data)
        ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1
    ) f
"""


async def fill(database: Sql, rows: int, reached: Callable[[int], None]) -> None:
    """Bring the ledger to about so many rows; `reached` hears how many it has.

    The dispatcher must be stopped: its followers take what is here for told. What the copies say within is the
    originals', so that `verify` would find them wrong; indexes, tables and plans are as large as they would be.
    """
    await database.execute(_LATER)
    await database.execute(_TEMPLATES)
    known: int = await database.fetchval("SELECT count(*) FROM known_fact")
    for number, shift in enumerate(shifts(rows // known - 1), start=2):
        async with database.transaction():
            for statement in _COPIES:
                await database.execute(statement, shift)
        reached(number * known)
    await database.execute(_FOLLOWED)


def shifts(copies: int) -> Iterator[int]:
    """Milliseconds from the originals to each copy, the oldest first: evenly over the week that ends with them."""
    return (-number * WEEK_MS // (copies + 1) for number in range(copies, 0, -1))


async def settle(database: Sql) -> int:
    """Do at once what autovacuum and the checkpointer would have done in a week; how many rows the ledger has."""
    await database.execute("VACUUM ANALYZE")
    await database.execute("CHECKPOINT")
    counted: int = await database.fetchval("SELECT count(*) FROM hookledger.fact")
    return counted
