"""What is told of deliveries: a follower of the ledger."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final, cast
from uuid import UUID

import asyncpg

from libs.common.contracts.operational import DeliveryData, encoded, last_attempt
from libs.common.domain.facts import AttemptEnded, DeliveryFact, DeliveryScheduled
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.operational import DELIVERY_FACTS, Told, of_delivery
from libs.common.domain.outcome import Outcome
from libs.common.postgres.checkpoint import Checkpoint
from libs.common.postgres.ledger import appended, read_streams
from libs.common.postgres.pool import Connection
from services.dispatcher.operational.telling import BATCH, NEWS_FOR, Item, accept, begin, move

FOLLOWER: Final = "operational_deliveries"


async def tell(connection: Connection, checkpoint: Checkpoint) -> int:
    """Tell what the next facts say of deliveries, in a transaction of their own; how many facts there were."""
    async with connection.transaction():
        cursor = await begin(connection, checkpoint)
        if cursor is None:
            return 0
        rows = await connection.fetch(
            """
            WITH batch AS MATERIALIZED (
                SELECT f.stream, f.version, f.epoch, f.xact, f.position, f.app, f.endpoint, f.kind, f.schema, f.at,
                    f.data
                FROM hookledger.fact f
                WHERE hookledger.is_followed(f.kind, f.data) AND (f.epoch, f.xact, f.position) > ($1, $2, $3)
                  AND (f.epoch, f.xact) < ((SELECT max(epoch) FROM hookledger.ledger_epoch),
                      pg_snapshot_xmin(pg_current_snapshot()))
                ORDER BY f.epoch, f.xact, f.position LIMIT $4
            ), ends AS (
                SELECT count(*) OVER () AS facts, epoch, xact, position
                FROM batch ORDER BY epoch DESC, xact DESC, position DESC LIMIT 1
            ), told AS (
                SELECT b.stream, b.version, b.app, b.endpoint, b.kind, b.schema, b.at, b.data, a.org, a.uid AS app_uid,
                    o.id AS operational
                FROM batch b
                JOIN unnest($5::text[], $6::int[]) AS k (kind, version) ON k.kind = b.kind AND b.version >= k.version
                JOIN hookledger.registry_object a ON a.id = b.app
                JOIN hookledger.registry_object o ON o.org = a.org AND o.id <> a.id
                    AND o.kind = 'application' AND o.uid = 'operational' AND o.deleted_at IS NULL
                WHERE b.at >= greatest(o.created_at, clock_timestamp() - $7::interval)
            )
            SELECT e.facts, e.epoch, e.xact, e.position, t.* FROM ends e LEFT JOIN told t ON true
            ORDER BY t.at, t.version
            """,
            *cursor,
            BATCH,
            list(DELIVERY_FACTS),
            list(DELIVERY_FACTS.values()),
            NEWS_FOR,
        )
        await accept(connection, await _of_deliveries(connection, [row for row in rows if row["operational"]]))
        return await move(connection, checkpoint, rows)


async def _of_deliveries(connection: Connection, rows: Sequence[asyncpg.Record]) -> list[Item]:
    """What these facts are told as, given the streams that they stand in."""
    wanted = [row for row in rows if not _failed(row)]
    if not wanted:
        return []
    streams: dict[UUID, list[DeliveryFact]] = defaultdict(list)
    for each in await read_streams(connection, {row["stream"] for row in wanted}):
        streams[each.stream].append(cast("DeliveryFact", each.fact))
    messages = {stream: cast("DeliveryScheduled", facts[0]).message for stream, facts in streams.items()}
    found = await connection.fetch(
        "SELECT id, event_id FROM hookledger.message WHERE id = ANY($1)", list(set(messages.values()))
    )
    event_ids = {row["id"]: row["event_id"] for row in found}
    told = {(stream, each.version): each for stream, facts in streams.items() for each in of_delivery(facts)}
    return [
        _item(row, told[place], messages[row["stream"]], event_ids.get(messages[row["stream"]]))
        for row in wanted
        if (place := (row["stream"], row["version"])) in told
    ]


def _item(row: asyncpg.Record, told: Told, message: UUID, event_id: str | None) -> Item:
    endpoint = encode(Prefix.ENDPOINT, row["endpoint"])
    data = DeliveryData(
        app_id=encode(Prefix.APPLICATION, row["app"]),
        app_uid=row["app_uid"],
        msg_id=encode(Prefix.MESSAGE, message),
        msg_event_id=event_id,
        endpoint_id=endpoint,
        last_attempt=last_attempt(told.last),
    )
    return Item(
        org=row["org"],
        app=row["operational"],
        news=told.news,
        subject=encode(Prefix.DELIVERY, row["stream"]),
        version=row["version"],
        at=row["at"],
        endpoint=endpoint,
        body=encoded(told.news, data),
    )


def _failed(row: asyncpg.Record) -> bool:
    """Whether it is an attempt that did not succeed: what follows from that is a fact of its own."""
    fact = appended(row).fact
    return isinstance(fact, AttemptEnded) and fact.outcome is not Outcome.SUCCEEDED
