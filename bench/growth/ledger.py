"""A ledger of many rows: what was delivered so far, again and again, at the times of the week before."""

from typing import Final

from bench.world import World

_CLONE: Final = """
    CREATE FUNCTION pg_temp.clone(original uuid, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(n), 12, '0') || '7' || substr(md5(original::text || n), 14))::uuid
    $$
"""
_TEMPLATE: Final = """
    CREATE TEMP TABLE template AS
    SELECT stream, version, epoch, app, endpoint, kind, schema, at, data FROM hookledger.fact;
    CREATE TEMP TABLE template_message AS SELECT * FROM hookledger.message;
    CREATE TEMP TABLE template_state AS SELECT * FROM projection_1.delivery_state;
    CREATE TEMP TABLE template_attempt AS SELECT * FROM projection_1.attempt;
"""
_COPIES: Final = (
    """
    INSERT INTO hookledger.fact (stream, version, epoch, app, endpoint, kind, schema, at, data)
    SELECT pg_temp.clone(stream, n), version, epoch, app, endpoint, kind, schema, at, data
    FROM generate_series($1::bigint, $2::bigint, $3::bigint) n, template
    """,
    """
    INSERT INTO hookledger.message
    SELECT (jsonb_populate_record(t, jsonb_build_object('id', pg_temp.clone(t.id, n)))).*
    FROM generate_series($1::bigint, $2::bigint, $3::bigint) n, template_message t
    """,
    """
    INSERT INTO projection_1.delivery_state
    SELECT (jsonb_populate_record(t, jsonb_build_object(
        'delivery', pg_temp.clone(t.delivery, n), 'message', pg_temp.clone(t.message, n)))).*
    FROM generate_series($1::bigint, $2::bigint, $3::bigint) n, template_state t
    """,
    """
    INSERT INTO projection_1.attempt
    SELECT (jsonb_populate_record(t, jsonb_build_object('delivery', pg_temp.clone(t.delivery, n),
        'message', pg_temp.clone(t.message, n), 'attempt', pg_temp.clone(t.attempt, n)))).*
    FROM generate_series($1::bigint, $2::bigint, $3::bigint) n, template_attempt t
    """,
)
_FOLLOWED: Final = """
    UPDATE hookledger.checkpoint c SET epoch = f.epoch, xact = f.xact, position = f.position
    FROM (SELECT epoch, xact, position FROM hookledger.fact ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1) f
"""
_WEEK_MS: Final = 7 * 24 * 3600 * 1000


async def fill(world: World, rows: int) -> int:
    """Bring the ledger to about so many rows; how many it has then.

    The dispatcher must be stopped: its followers take what is here for told. What the copies say within is the
    originals', so that `verify` would find them wrong; indexes, tables and plans are as large as they would be.
    """
    database = world.database
    await database.execute(_CLONE)
    await database.execute(_TEMPLATE)
    known: int = await database.fetchval("SELECT count(*) FROM hookledger.fact")
    copies = rows // known - 1
    now_ms: int = await database.fetchval("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")
    begins = (now_ms // _WEEK_MS - 1) * _WEEK_MS
    step = max(1, (_WEEK_MS - 1) // max(1, copies))
    async with database.transaction():
        for statement in _COPIES:
            await database.execute(statement, begins, begins + (copies - 1) * step, step, timeout=1800)
        await database.execute(_FOLLOWED)
    await database.execute("VACUUM ANALYZE", timeout=600)
    await database.execute("CHECKPOINT", timeout=600)
    counted: int = await database.fetchval("SELECT count(*) FROM hookledger.fact", timeout=600)
    return counted
