"""What is told of endpoints: a follower of the registry's ledger."""

from typing import Final

import asyncpg
import msgspec

from libs.common.contracts.operational import EndpointData, encoded
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.operational import ENDPOINT_FACTS, of_endpoint
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.pool import Connection
from libs.common.postgres.registry import FactData
from services.dispatcher.operational.telling import BATCH, NEWS_FOR, Item, accept, begin, move

FOLLOWER: Final = "operational_endpoints"


async def tell(connection: Connection, checkpoint: Checkpoint) -> int:
    """Tell what the next facts of the registry say of endpoints, in a transaction of their own; how many there were."""
    async with connection.transaction():
        cursor = await begin(connection, checkpoint)
        if cursor is None:
            return 0
        rows = await connection.fetch(
            """
            WITH batch AS MATERIALIZED (
                SELECT f.stream, f.version, f.epoch, f.xact, f.position, f.org, f.app, f.kind, f.at, f.data
                FROM hookledger.registry_fact f
                WHERE (f.epoch, f.xact, f.position) > ($1, $2, $3)
                  AND (f.epoch, f.xact) < ((SELECT max(epoch) FROM hookledger.ledger_epoch),
                      pg_snapshot_xmin(pg_current_snapshot()))
                ORDER BY f.epoch, f.xact, f.position LIMIT $4
            ), ends AS (
                SELECT count(*) OVER () AS facts, epoch, xact, position
                FROM batch ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1
            ), told AS (
                SELECT b.stream, b.version, b.org, b.app, b.kind, b.at, b.data, a.uid AS app_uid, o.id AS operational
                FROM batch b
                JOIN hookledger.registry_object a ON a.id = b.app
                JOIN hookledger.registry_object o ON o.org = b.org AND o.id <> b.app
                    AND o.kind = 'application' AND o.uid = 'operational' AND o.deleted_at IS NULL
                WHERE b.kind = ANY($5) AND b.at >= greatest(o.created_at, clock_timestamp() - $6::interval)
            )
            SELECT e.facts, e.epoch, e.xact, e.position, t.* FROM ends e LEFT JOIN told t ON true
            ORDER BY t.at, t.version
            """,
            *cursor,
            BATCH,
            list(ENDPOINT_FACTS),
            NEWS_FOR,
        )
        items = [_of_endpoint(row) for row in rows if row["operational"]]
        await accept(connection, [item for item in items if item is not None])
        return await move(connection, checkpoint, rows)


def _of_endpoint(row: asyncpg.Record) -> Item | None:
    said = msgspec.json.decode(row["data"], type=FactData)
    news = of_endpoint(row["kind"], fail_since=said.fail_since)
    if news is None:
        return None
    endpoint = encode(Prefix.ENDPOINT, row["stream"])
    data = EndpointData(
        app_id=encode(Prefix.APPLICATION, row["app"]),
        app_uid=row["app_uid"],
        endpoint_id=endpoint,
        endpoint_uid=said.uid,
        fail_since=said.fail_since,
    )
    return Item(
        org=row["org"],
        app=row["operational"],
        news=news,
        subject=endpoint,
        version=row["version"],
        at=row["at"],
        endpoint=endpoint,
        body=encoded(news, data),
    )
