"""Many rows at once, as the services would have left them: for what is measured, or shown, of large tables."""

from dataclasses import dataclass
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg

from libs.common.domain import ids
from libs.common.postgres.pool import Connection

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

RARE_EVERY: Final = 9_000
"""One message of so many is of a rare type, on a rare channel, to an endpoint that was gone."""
EVERY_MS: Final = 500
"""So long after the one before each message was accepted: a million of them fit in the oldest week that there is."""

# As `libs.common.domain.ids` makes them.
_FUNCTIONS: Final = """
    CREATE OR REPLACE FUNCTION pg_temp.layout(ms bigint, hash bytea) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
        SELECT (lpad(to_hex(ms), 12, '0')
            || lpad(to_hex((B'0111' || substring(b FROM 7 FOR 12))::bit(16)::int), 4, '0')
            || lpad(to_hex((B'10' || substring(b FROM 19 FOR 62))::bit(64)::bigint), 16, '0'))::uuid
        FROM (SELECT ('x' || encode(substr(hash, 1, 10), 'hex'))::bit(80) AS b) digest
    $$;
    CREATE OR REPLACE FUNCTION pg_temp.time_id(ms bigint, seed text) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
        SELECT pg_temp.layout(ms, sha256(convert_to(seed, 'utf8')))
    $$;
    CREATE OR REPLACE FUNCTION pg_temp.delivery_id(message uuid, endpoint uuid) RETURNS uuid
    IMMUTABLE LANGUAGE sql AS $$
        SELECT pg_temp.layout(('x' || left(translate(message::text, '-', ''), 12))::bit(48)::bigint,
            sha256(uuid_send(message) || uuid_send(endpoint)))
    $$;
"""

# :pairs is a query for n, message, endpoint and the milliseconds since 1970; its $1 is the application.
_DELIVERIES: Final = """
    INSERT INTO projection_1.delivery_state (delivery, app, message, endpoint, status, version, run, attempts,
        failures, unknowns, last_status, created_at, updated_at)
    SELECT pg_temp.delivery_id(message, endpoint), $1::uuid, message, endpoint,
        CASE WHEN n % 9000 = 0 THEN 'gone' WHEN n % 100 = 0 THEN 'exhausted' ELSE 'succeeded' END,
        3, 1, 1, 0, 0, 200, to_timestamp(ms / 1000.0), to_timestamp(ms / 1000.0)
    FROM (:pairs) pair
"""
_ATTEMPTS: Final = """
    INSERT INTO projection_1.attempt (delivery, attempt, app, message, endpoint, run, number, trigger, config_version,
        process, result, status, url, sends, total_us, started_at, ended_at)
    SELECT pg_temp.delivery_id(message, endpoint), pg_temp.time_id(ms + 20, endpoint::text || n), $1::uuid, message,
        endpoint, 1, 1, 'scheduled', 1, message,
        CASE WHEN n % 9000 = 0 THEN 'gone' WHEN n % 100 = 0 THEN 'retryable' ELSE 'succeeded' END,
        CASE WHEN n % 9000 = 0 THEN 410 WHEN n % 100 = 0 THEN 500 ELSE 200 END,
        'https://receiver.example/hook', 1, 25000, to_timestamp((ms + 20) / 1000.0), to_timestamp((ms + 45) / 1000.0)
    FROM (:pairs) pair
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One application with one endpoint, and the moment, in milliseconds since 1970, that its history leads up to."""

    org: UUID
    app: UUID
    endpoint: UUID
    until_ms: int


async def prepare(sql: Sql) -> None:
    """Must come before the others, once for a connection."""
    await sql.execute(_FUNCTIONS)


async def history(sql: Sql, place: Place, first: int, last: int) -> None:
    """The messages from the `first` to the `last` back from now, each with its payload, delivery and attempt."""
    await sql.execute(
        """
        INSERT INTO hookledger.message (id, org, app, event_type, channels, tags, origin, content_type, body_hash,
            body_bytes, registry_version, publish, accepted_at)
        SELECT pg_temp.time_id($3 - n * $6, $2::uuid::text || n), $1, $2::uuid,
            CASE WHEN n % $7 = 0 THEN 'order.rare' WHEN n % 10 = 0 THEN 'order.refunded' ELSE 'order.completed' END,
            CASE WHEN n % $7 = 0 THEN '{rare}' WHEN n % 2 = 0 THEN '{eu}' ELSE '{us,eu}' END::text[],
            CASE WHEN n % 3 = 0 THEN '{paid}' ELSE '{}' END::text[],
            'api', 'application/json', '', 8, 1, false, to_timestamp(($3 - n * $6) / 1000.0)
        FROM generate_series($4::bigint, $5::bigint) n
        """,
        place.org, place.app, place.until_ms, first, last, EVERY_MS, RARE_EVERY,
    )  # fmt: skip
    await sql.execute(
        """
        INSERT INTO hookledger.message_body (message, salt, body)
        SELECT pg_temp.time_id($2 - n * $5, $1::uuid::text || n), '', '{"a": 1}'
        FROM generate_series($3::bigint, $4::bigint) n
        """,
        place.app, place.until_ms, first, last, EVERY_MS,
    )  # fmt: skip
    pairs = """
        SELECT n, pg_temp.time_id($3 - n * $6, $1::uuid::text || n) AS message, $2::uuid AS endpoint,
            $3 - n * $6 AS ms
        FROM generate_series($4::bigint, $5::bigint) n
    """
    for statement in (_DELIVERIES, _ATTEMPTS):
        await sql.execute(
            statement.replace(":pairs", pairs),
            place.app, place.endpoint, place.until_ms, first, last, EVERY_MS,
        )  # fmt: skip


async def fan_out(sql: Sql, place: Place, message: UUID) -> None:
    """A delivery of one message to each endpoint of the application, with an attempt."""
    pairs = """
        SELECT row_number() OVER () AS n, $2::uuid AS message, id AS endpoint, $3::bigint AS ms
        FROM hookledger.registry_object WHERE kind = 'endpoint' AND app = $1::uuid
            AND id NOT IN (SELECT endpoint FROM projection_1.delivery_state WHERE message = $2::uuid)
    """
    # The attempts first: what has a delivery is left out.
    for statement in (_ATTEMPTS, _DELIVERIES):
        await sql.execute(statement.replace(":pairs", pairs), place.app, message, ids.born_ms(message))


async def backlog(sql: Connection, app: UUID, *, lanes: int, rows: int, max_inflight: int = 32) -> None:
    """Due deliveries of an application in so many lanes; the more rows it has, the longer they are due.

    Nothing but the queue knows of them: they can be claimed, and not sent.
    """
    await sql.execute(
        """
        INSERT INTO hookledger.lane (lane, app, endpoint, ready_at, head_due, max_inflight)
        SELECT l.lane, $1, l.lane, now() - $3::int * interval '1 ms', now() - $3::int * interval '1 ms', $4
        FROM (SELECT gen_random_uuid() AS lane FROM generate_series(1, $2::int)) l
        """,
        app, lanes, rows, max_inflight,
    )  # fmt: skip
    await sql.execute(
        """
        INSERT INTO hookledger.queue (delivery, lane, due_at)
        SELECT gen_random_uuid(), l.lane, now() - $3::int * interval '1 ms'
        FROM hookledger.lane l, generate_series(1, $3::int / $2::int) WHERE l.app = $1
        """,
        app, lanes, rows,
    )  # fmt: skip
    await sql.execute(
        "INSERT INTO hookledger.app_turn (app, ready_at) VALUES ($1, now() - $2::int * interval '1 ms')", app, rows
    )


async def objects(sql: Sql, org: UUID, kinds: list[str], count: int) -> None:
    """So many more of each registry object of these kinds."""
    await sql.execute(
        """
        INSERT INTO hookledger.registry_object (id, kind, org, app, uid, version, registry_version, created_at,
            updated_at, data)
        SELECT pg_temp.time_id(floor(extract(epoch FROM o.created_at) * 1000)::bigint - n, o.id::text || n),
            o.kind, o.org, o.app, o.uid || '.' || lpad(n::text, 7, '0'), o.version, o.registry_version, o.created_at,
            o.updated_at,
            CASE WHEN o.kind = 'api_key' THEN o.data || jsonb_build_object('hash', o.id::text || n) ELSE o.data END
        FROM hookledger.registry_object o, generate_series(1, $3::bigint) n
        WHERE o.org = $1 AND o.kind = ANY($2::text[])
        """,
        org, kinds, count,
    )  # fmt: skip
    await sql.execute("""
        INSERT INTO hookledger.job (id, state) SELECT id, 'finished' FROM hookledger.registry_object WHERE kind = 'job'
        ON CONFLICT DO NOTHING
    """)


async def changes(sql: Sql, stream: UUID, count: int) -> None:
    """So many more changes of one object, each like its first."""
    await sql.execute(
        """
        INSERT INTO hookledger.registry_fact (stream, version, epoch, org, app, endpoint, kind, schema, at, actor,
            registry_version, data)
        SELECT stream, 1000 + n, epoch, org, app, endpoint, replace(kind, 'Created', 'Updated'), schema, at, actor,
            registry_version, data
        FROM hookledger.registry_fact, generate_series(1, $2::bigint) n WHERE stream = $1 AND version = 1
        """,
        stream, count,
    )  # fmt: skip


async def rejected(sql: Sql, place: Place, count: int) -> None:
    """Requests to the application that were not accepted."""
    await sql.execute(
        """
        INSERT INTO hookledger.rejected (id, org, app, origin, status, reason, headers, body, size, at)
        SELECT pg_temp.time_id($3 - n, $2::uuid::text || n), $1, $2::uuid, 'source', 401, 'signature', '{}', '', 0,
            to_timestamp(($3 - n) / 1000.0)
        FROM generate_series(1, $4::bigint) n
        """,
        place.org, place.app, place.until_ms, count,
    )  # fmt: skip
