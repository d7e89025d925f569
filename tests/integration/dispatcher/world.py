"""What the dispatcher finds: a registry, accepted messages, and a ledger to look into."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg
import msgspec
import pytest

from libs.common.contracts import ledger
from libs.common.contracts.registry import (
    ApplicationDocument,
    EndpointDocument,
    KeyReference,
    Kind,
    OrganisationDocument,
)
from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT, Rule
from libs.common.domain.facts import DeliveryScheduled, MessageAccepted, Origin
from libs.common.domain.message import Message
from libs.common.postgres.ledger import Appended, append
from libs.common.postgres.migrate import epoch
from libs.common.postgres.pool import Pool, open_pool
from libs.common.postgres.rebuild import Rebuilt, rebuild_database
from libs.common.postgres.registry import changing
from libs.common.postgres.snapshot import object_of
from libs.common.postgres.verify import verify_database
from libs.common.runtime.clock import new_id
from libs.common.runtime.sealing import MasterKeys
from services.dispatcher import lanes
from tests.support.progress import UNHEARD

BODY = b'{"a":1, "b":[1,2]}'
PATIENCE_SECONDS = 20.0
MASTER_KEY = base64.b64encode(os.urandom(32)).decode()
Seen = TypeVar("Seen")


class World:
    """One organisation in a database.

    Attributes:
        owner: a connection of the user who migrated.
        registry: connections with the registry's role.
    """

    def __init__(self, url: str, owner: Pool, registry: Pool, epoch: int) -> None:
        self.url = url
        self.owner = owner
        self.registry = registry
        self.epoch = epoch
        self.keys = MasterKeys.parse(MASTER_KEY)
        self.org = new_id()
        self.apps: list[UUID] = []

    async def found(self) -> None:
        """Create the organisation."""
        async with self.registry.acquire() as connection, changing(connection, "operator") as changes:
            await changes.create(Kind.ORGANISATION, self.org, OrganisationDocument(name="tests"), org=self.org)

    async def application(self, uid: str | None = None, **fields: Any) -> UUID:
        """A new application."""
        app, document = new_id(), ApplicationDocument(name="tests", **fields)
        async with self.registry.acquire() as connection, changing(connection, "operator") as changes:
            await changes.create(Kind.APPLICATION, app, document, org=self.org, uid=uid)
        self.apps.append(app)
        return app

    async def endpoint(self, app: UUID, url: str, *, schedule: tuple[float, ...] = (0.05, 0.1), **fields: Any) -> UUID:
        """A new endpoint with a secret."""
        return (await self.endpoints(app, [url], schedule=schedule, **fields))[0]

    async def endpoints(
        self, app: UUID, urls: Sequence[str], *, schedule: tuple[float, ...] = (0.05, 0.1), **fields: Any
    ) -> list[UUID]:
        """New endpoints, created in one change."""
        made = []
        async with self.registry.acquire() as connection, changing(connection, "operator") as changes:
            for url in urls:
                endpoint, key = new_id(), new_id()
                secret = b"whsec_" + base64.b64encode(os.urandom(24))
                await connection.execute(
                    "INSERT INTO hookledger.secret (id, owner, org, sealed, created_at) VALUES ($1, $2, $3, $4, now())",
                    key,
                    endpoint,
                    self.org,
                    self.keys.seal(secret, owner=endpoint, org=self.org),
                )
                document = EndpointDocument(
                    url=url, retry_schedule=schedule, keys=(KeyReference(id=key, fingerprint="x"),), **fields
                )
                await changes.create(Kind.ENDPOINT, endpoint, document, org=self.org, app=app)
                made.append(endpoint)
        return made

    async def change(self, endpoint: UUID, **fields: Any) -> None:
        """Change fields of an endpoint's document."""
        async with self.registry.acquire() as connection, changing(connection, "operator") as changes:
            old = object_of(await self._object(connection, endpoint))
            document: Any = msgspec.structs.replace(old.document, **fields)
            await changes.update(old, document, uid=old.uid)

    async def delete(self, endpoint: UUID) -> None:
        """Delete an endpoint."""
        async with self.registry.acquire() as connection, changing(connection, "operator") as changes:
            await changes.delete(object_of(await self._object(connection, endpoint)))

    async def version(self) -> int:
        """The registry's."""
        version: int = await self.owner.fetchval("SELECT version FROM hookledger.registry_version")
        return version

    async def accept(
        self,
        app: UUID,
        count: int = 1,
        *,
        body: bytes = BODY,
        event_type: str = "order.completed",
        publish: bool = False,
        overdue: timedelta = timedelta(0),
        event_id: str | None = None,
        ordering_key: str | None = None,
        deliver_in: timedelta | None = None,
    ) -> list[Message]:
        """Commit messages as ingress does; `overdue` lets their envelope seem lost for so long."""
        accepted_at = await self.owner.fetchval("SELECT clock_timestamp()")
        messages = [
            Message(
                id=new_id(),
                org=self.org,
                app=app,
                event_type=event_type,
                body=body,
                accepted_at=accepted_at,
                registry_version=await self.version(),
                origin=Origin.API,
                publish=publish,
                event_id=event_id,
                ordering_key=ordering_key,
                deliver_at=None if deliver_in is None else accepted_at + deliver_in,
            )
            for _ in range(count)
        ]
        async with self.owner.acquire() as connection, connection.transaction():
            await self.store(connection, messages)
            await connection.executemany(
                "INSERT INTO hookledger.outbox (message, app, accepted_at) VALUES ($1, $2, $3)",
                [(message.id, app, accepted_at - overdue) for message in messages],
            )
        return messages

    async def store(self, connection: Any, messages: Sequence[Message], *, ledger_epoch: int | None = None) -> None:
        """Messages, their bytes and their first facts."""
        await self.store_messages(connection, messages)
        await append(
            connection,
            ledger_epoch or self.epoch,
            [Appended(stream=m.id, version=1, app=m.app, endpoint=None, fact=_accepted(m)) for m in messages],
        )

    async def store_fact(self, connection: Any, message: Message, *, transaction_id: int) -> None:
        """A message's first fact as if that transaction had appended it."""
        kind, schema, data = ledger.encode(_accepted(message))
        await connection.execute(
            """
            INSERT INTO hookledger.fact (stream, version, xact, epoch, app, kind, schema, at, data)
            VALUES ($1, 1, $2::text::xid8, $3, $4, $5, $6, $7, $8)
            """,
            message.id,
            str(transaction_id),
            self.epoch,
            message.app,
            kind,
            schema,
            message.accepted_at,
            data,
        )

    async def store_messages(self, connection: Any, messages: Sequence[Message]) -> None:
        """Messages and their bytes."""
        await connection.executemany(
            """
            INSERT INTO hookledger.message (id, org, app, event_type, channels, origin, content_type, body_hash,
                body_bytes, registry_version, publish, accepted_at, event_id, ordering_key, deliver_at)
            VALUES ($1, $2, $3, $4, '{}', 'api', 'application/json', 'x', $5, $6, $7, $8, $9, $10, $11)
            """,
            [
                (
                    *(m.id, m.org, m.app, m.event_type, len(m.body), m.registry_version, m.publish, m.accepted_at),
                    *(m.event_id, m.ordering_key, m.deliver_at),
                )
                for m in messages
            ],
        )
        await connection.executemany(
            "INSERT INTO hookledger.message_body (message, salt, body) VALUES ($1, 's', $2)",
            [(m.id, m.body) for m in messages],
        )

    async def waiting(
        self,
        app: UUID,
        endpoint: UUID,
        count: int,
        *,
        due_in: timedelta = timedelta(0),
        age: timedelta = timedelta(0),
    ) -> list[UUID]:
        """Deliveries of one message that wait for an endpoint, as fan-out leaves them when there is no place."""
        [message] = await self.accept(app)
        await self.owner.execute("DELETE FROM hookledger.outbox WHERE message = $1", message.id)
        now = message.accepted_at
        scheduled = DeliveryScheduled(
            at=now - age,
            app=app,
            message=message.id,
            endpoint=endpoint,
            config_version=1,
            rule=Rule.ALL,
            due_at=now + due_in,
        )
        kind, schema, data = ledger.encode(scheduled)
        deliveries = sorted(new_id() for _ in range(count))
        async with self.owner.acquire() as connection, connection.transaction():
            await connection.copy_records_to_table(
                "fact",
                schema_name="hookledger",
                columns=("stream", "version", "epoch", "app", "endpoint", "kind", "schema", "at", "data"),
                records=[(d, 1, self.epoch, app, endpoint, kind, schema, scheduled.at, data) for d in deliveries],
            )
            await connection.copy_records_to_table(
                "delivery_state",
                schema_name="projection_1",
                columns=(
                    *("delivery", "app", "message", "endpoint", "status", "version", "run", "attempts", "failures"),
                    *("unknowns", "due_at", "created_at", "updated_at"),
                ),
                records=[
                    (d, app, message.id, endpoint, "waiting", 1, 1, 0, 0, 0, now + due_in, now - age, now - age)
                    for d in deliveries
                ],
            )
            change = {endpoint: lanes.LaneChange(app=app, endpoint=endpoint, max_inflight=DEFAULT_MAX_INFLIGHT)}
            await lanes.lock(connection, change)
            await connection.copy_records_to_table(
                "queue",
                schema_name="hookledger",
                columns=("delivery", "lane", "due_at"),
                records=[(d, endpoint, now + due_in) for d in deliveries],
            )
            await lanes.refresh(connection, change, now, served=False)
        return deliveries

    async def clear(self) -> None:
        """Forget everything that waits or runs, so that the next test finds nothing of this one."""
        await self.owner.execute("""
            TRUNCATE hookledger.queue, hookledger.lane, hookledger.app_turn, hookledger.process, hookledger.outbox,
                hookledger.checkpoint, hookledger.throttle, hookledger.skip_request, hookledger.breaker, projection_1.endpoint_hour,
                projection_1.endpoint_health
        """)

    async def state(self, delivery: UUID) -> asyncpg.Record:
        """The projected state of a delivery."""
        row = await self.owner.fetchrow("SELECT * FROM projection_1.delivery_state WHERE delivery = $1", delivery)
        assert row is not None, "not fanned out"
        return row

    async def facts(self, stream: UUID) -> list[str]:
        """The kinds of a stream's facts, in their order."""
        rows = await self.owner.fetch("SELECT kind FROM hookledger.fact WHERE stream = $1 ORDER BY version", stream)
        return [row["kind"] for row in rows]

    async def statuses(self, app: UUID) -> dict[str, int]:
        """How many of an application's deliveries are where."""
        rows = await self.owner.fetch(
            "SELECT status, count(*) AS n FROM projection_1.delivery_state WHERE app = $1 GROUP BY 1", app
        )
        return {row["status"]: row["n"] for row in rows}

    async def until_over(self, app: UUID, count: int) -> dict[str, int]:
        """The statuses once `count` deliveries of the application are over."""

        async def over() -> dict[str, int] | None:
            found = await self.statuses(app)
            return found if sum(found.values()) >= count and not found.keys() & {"waiting", "sending"} else None

        return await until(over, f"{count} deliveries over")

    async def until_status(self, delivery: UUID, status: str) -> asyncpg.Record:
        """The projected state of a delivery, once it has that status."""

        async def reached() -> asyncpg.Record | None:
            row = await self.owner.fetchrow("SELECT * FROM projection_1.delivery_state WHERE delivery = $1", delivery)
            return row if row is not None and row["status"] == status else None

        return await until(reached, f"delivery {status}")

    async def assert_verified(self) -> None:
        """Projections, queue and lanes equal the fold; but for what earlier tests left open and `clear` forgot."""
        said: list[str] = []
        await verify_database(self.owner, said.append)
        rows = await self.owner.fetch(
            """
            SELECT delivery FROM projection_1.delivery_state
            WHERE (status IN ('waiting', 'sending', 'held') OR resend_at IS NOT NULL) AND app <> ALL($1)
            """,
            self.apps,
        )
        forgotten = {f"queue {row['delivery']}: in the ledger, not in the projection" for row in rows}
        assert [line for line in said if line not in forgotten] == []

    async def rebuild(self) -> Rebuilt:
        """Project everything again: also after tests that take from the queue without ending deliveries."""
        return await rebuild_database(self.url, UNHEARD, pytest.fail)

    async def _object(self, connection: Any, identity: UUID) -> asyncpg.Record:
        row: asyncpg.Record = await connection.fetchrow(
            "SELECT * FROM hookledger.registry_object WHERE id = $1", identity
        )
        return row


def _accepted(message: Message) -> MessageAccepted:
    return MessageAccepted(
        at=message.accepted_at,
        event_type=message.event_type,
        origin=message.origin,
        source=None,
        registry_version=message.registry_version,
        publish=message.publish,
    )


async def until(seen: Callable[[], Awaitable[Seen | None]], what: str, *, within: float = PATIENCE_SECONDS) -> Seen:
    """What `seen` finds in Postgres, as soon as it finds it: rows that another process writes cannot be awaited."""
    try:
        async with asyncio.timeout(within):
            while not (found := await seen()):  # noqa: ASYNC110  see above
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {within:.0f} s: {what}") from None
    return found


@asynccontextmanager
async def world_in(url: str) -> AsyncIterator[World]:
    """A new organisation in the migrated database at `url`."""
    async with (
        asyncpg.create_pool(url, min_size=1, max_size=6) as owner,
        await open_pool(url, "registry", size=4) as registry,
    ):
        async with owner.acquire() as connection:
            opened = await epoch(connection)
        assert opened is not None
        world = World(url, owner, registry, opened)
        await world.found()
        yield world
