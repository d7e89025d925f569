"""What the tests of the ingress share: a registry that is seeded by hand, replicas, signed requests."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aio_pika
import stripe
from aio_pika.abc import AbstractIncomingMessage
from msgspec.structs import replace
from standardwebhooks import Webhook

from deploy.stack.installation import Installation
from deploy.stack.services import Service
from libs.common.contracts.credentials import KEY_BYTES, format_key, hash_key
from libs.common.contracts.registry import (
    ApiKeyDocument,
    ApplicationDocument,
    EndpointDocument,
    KeyReference,
    Kind,
    OrganisationDocument,
    RegistryObject,
    Scope,
    SourceDocument,
)
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.pool import Pool
from libs.common.postgres.registry import OPERATOR, changing
from libs.common.postgres.snapshot import object_of
from libs.common.rabbitmq.topology import Names, declare
from libs.common.runtime.clock import new_id, now, random_bytes
from libs.common.runtime.sealing import MasterKeys
from tests.support import network

STRIPE_SECRET = "whsec_of_stripes_own_form"
GITHUB_SECRET = "a secret of GitHub's"
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRETS = {"stripe": STRIPE_SECRET, "github": GITHUB_SECRET, "standard-webhooks": STANDARD_SECRET}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """An organisation with one application, its sources by provider, and a key that may publish."""

    org: UUID
    app: UUID
    app_uid: str
    key: str
    sources: Mapping[str, UUID]

    @property
    def app_id(self) -> str:
        """As the API shows it."""
        return ids.encode(Prefix.APPLICATION, self.app)

    def path_in(self, provider: str) -> str:
        """Where that provider sends to."""
        return f"/in/{ids.encode(Prefix.SOURCE, self.sources[provider])}"

    @property
    def path(self) -> str:
        """Where messages are created."""
        return f"/api/v1/app/{self.app_id}/msg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """The corner of one module: who writes its registry, who looks into its database, and how to start a replica.

    Attributes:
        installation: the settings that its replicas share.
        writer: connections with the registry's role.
        observer: connections that may read everything.
        broker_user: whom the tests are to the broker.
    """

    installation: Installation
    writer: Pool
    observer: Pool
    broker_user: str

    @property
    def names(self) -> Names:
        """Its exchanges and queues."""
        return Names(self.installation.corner.amqp_prefix)

    async def create(self, kind: Kind, document: Any, *, org: UUID | None = None, **place: Any) -> RegistryObject:
        """A registry object, committed when this returns; nobody is told."""
        identity = new_id()
        async with self.writer.acquire() as connection, changing(connection, OPERATOR) as changes:
            return await changes.create(kind, identity, document, org=org or identity, **place)

    async def delete(self, identity: UUID) -> None:
        """Delete a registry object; nobody is told."""
        async with self.writer.acquire() as connection, changing(connection, OPERATOR) as changes:
            row = await connection.fetchrow("SELECT * FROM hookledger.registry_object WHERE id = $1", identity)
            assert row is not None
            await changes.delete(object_of(row))

    async def create_key(self, org: UUID, *scopes: Scope, expires_at: datetime | None = None) -> str:
        """An API key's text."""
        text = format_key(random_bytes(KEY_BYTES))
        document = ApiKeyDocument(hash=hash_key(text), scopes=scopes or (Scope.PUBLISH,), expires_at=expires_at)
        await self.create(Kind.API_KEY, document, org=org)
        return text

    async def create_source(
        self, org: UUID, app: UUID, provider: str, secret: str, *, identity: UUID | None = None, **settings: Any
    ) -> UUID:
        """A source with its secret sealed."""
        identity, key = identity or new_id(), new_id()
        keys = (KeyReference(id=key, fingerprint="-"),)
        document = SourceDocument(name=provider, provider=provider, keys=keys, **settings)
        master_keys = MasterKeys.parse(self.replica().settings["MASTER_KEY"])
        async with self.writer.acquire() as connection, changing(connection, OPERATOR) as changes:
            await connection.execute(
                "INSERT INTO hookledger.secret (id, owner, org, sealed, created_at) VALUES ($1, $2, $3, $4, $5)",
                key,
                identity,
                org,
                master_keys.seal(secret.encode(), owner=identity, org=org),
                now(),
            )
            await changes.create(Kind.SOURCE, identity, document, org=org, app=app)
        return identity

    async def rotate_source(self, identity: UUID, secret: str, *, old_until: datetime | None = None) -> None:
        """Give a source another secret, beside the old one until then; nobody is told."""
        key = new_id()
        master_keys = MasterKeys.parse(self.replica().settings["MASTER_KEY"])
        async with self.writer.acquire() as connection, changing(connection, OPERATOR) as changes:
            row = await connection.fetchrow("SELECT * FROM hookledger.registry_object WHERE id = $1", identity)
            assert row is not None
            old = object_of(row)
            assert isinstance(old.document, SourceDocument)
            await connection.execute(
                "INSERT INTO hookledger.secret (id, owner, org, sealed, created_at) VALUES ($1, $2, $3, $4, $5)",
                key,
                identity,
                old.org,
                master_keys.seal(secret.encode(), owner=identity, org=old.org),
                now(),
            )
            olds = () if old_until is None else (replace(old.document.keys[0], expires_at=old_until),)
            document = replace(old.document, keys=(KeyReference(id=key, fingerprint="-"), *olds))
            await changes.update(old, document, uid=old.uid)

    async def create_endpoint(self, org: UUID, app: UUID) -> RegistryObject:
        """An endpoint."""
        return await self.create(Kind.ENDPOINT, EndpointDocument(url="http://127.0.0.1:9/"), org=org, app=app)

    async def create_tenant(
        self, *, broker_user: str | None = None, organisation: OrganisationDocument | None = None, **application: Any
    ) -> Tenant:
        """An organisation with all that belongs to it."""
        document = organisation or OrganisationDocument(name="tests")
        org = (await self.create(Kind.ORGANISATION, document, uid=broker_user)).id
        uid = f"app-{org.hex[-8:]}"
        app = (await self.create(Kind.APPLICATION, ApplicationDocument(name="t", **application), org=org, uid=uid)).id
        sources = {name: await self.create_source(org, app, name, secret) for name, secret in SECRETS.items()}
        return Tenant(org=org, app=app, app_uid=uid, key=await self.create_key(org), sources=sources)

    def replica(self, name: str = "1", **settings: str) -> Service:
        """An ingress, not started yet."""
        return self.installation.service("ingress", replica=name, settings={"REQUEST_TIMEOUT_MS": "1000"} | settings)

    async def count(self, table: str, **columns: Any) -> int:
        """How many rows of a table have these values."""
        where = " AND ".join(f"{name} = ${place}" for place, name in enumerate(columns, 1)) or "true"
        query = f"SELECT count(*) FROM hookledger.{table} WHERE {where}"  # noqa: S608  the tests' own words
        return int(await self.observer.fetchval(query, *columns.values()))

    async def until(self, count: int, table: str, *, seconds: float = 10, **columns: Any) -> None:
        """Wait until so many rows have these values."""
        async with asyncio.timeout(seconds):
            while await self.count(table, **columns) != count:  # noqa: ASYNC110  another process's state
                await asyncio.sleep(0.05)

    async def rejected(self, tenant: Tenant, count: int = 1) -> list[Any]:
        """The tenant's rejected rows, oldest first, once there are `count`: they are written off the answer's path."""
        async with asyncio.timeout(10):
            while True:
                rows: list[Any] = await self.observer.fetch(
                    "SELECT * FROM hookledger.rejected WHERE org = $1 ORDER BY id", tenant.org
                )
                if len(rows) >= count:
                    return rows
                await asyncio.sleep(0.05)

    async def declared(self, connection: aio_pika.abc.AbstractConnection) -> aio_pika.abc.AbstractChannel:
        """A channel of this connection, on which everything is declared."""
        channel = await connection.channel()
        await declare(channel, self.names)
        return channel


@contextmanager
def started(*replicas: Service) -> Iterator[None]:
    """Replicas that run until the block ends."""
    try:
        for replica in replicas:
            replica.start()
        for replica in replicas:
            replica.wait_ready()
        yield
    finally:
        for replica in replicas:
            replica.stop(grace_s=15)


@asynccontextmanager
async def cut_off(stand: Stand, name: str) -> AsyncIterator[tuple[Service, Callable[[], Awaitable[None]]]]:
    """A replica, and what cuts it off from its database."""
    database = stand.installation.corner.database_url
    async with network.linked(*network.address(database, 5432)) as link:
        replica = stand.replica(name, DATABASE_URL=network.through(link, database))

        async def cut() -> None:
            link.retarget("127.0.0.1", 1)  # where nobody listens
            link.reset()

        await asyncio.to_thread(replica.start)
        try:
            await asyncio.to_thread(replica.wait_ready)
            yield replica, cut
        finally:
            await asyncio.to_thread(replica.stop, grace_s=15)


# What providers send


def stripe_signed(body: bytes, *, secret: str = STRIPE_SECRET, at: float | None = None) -> dict[str, str]:
    """Headers as Stripe sends them, signed by its own package."""
    moment = int(time.time() if at is None else at)
    signature = stripe.WebhookSignature._compute_signature(f"{moment}.{body.decode()}", secret)
    return {"Stripe-Signature": f"t={moment},v1={signature}", "Content-Type": "application/json; charset=utf-8"}


def github_signed(body: bytes, delivery: str, *, event: str = "push", secret: str = GITHUB_SECRET) -> dict[str, str]:
    """Headers as GitHub sends them."""
    return {
        "X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "Content-Type": "application/json",
    }


def standard_signed(body: bytes, message: str, *, secret: str = STANDARD_SECRET) -> dict[str, str]:
    """Headers as the specification's own package signs them."""
    at = datetime.now(UTC)
    return {
        "webhook-id": message,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, at, body.decode()),
        "Content-Type": "application/json",
    }


def stripe_event(event_id: str = "evt_1", event_type: str = "payment_intent.succeeded", **more: Any) -> bytes:
    """A body such as Stripe's."""
    return json.dumps({"id": event_id, "object": "event", "type": event_type, **more}, indent=2).encode()


def cloud_event(tenant: Tenant, event_id: str, data: str = '{"n" : 1}', **attributes: Any) -> bytes:
    """A producer's event, with `data` spelled as it is."""
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/tests",
        "type": "order.completed",
        "hookledgerapp": tenant.app_uid,
        **attributes,
    }
    members = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in event.items() if value is not None]
    return ("{" + ",".join([*members, f'"data": {data}']) + "}").encode()


def binary_event(tenant: Tenant, event_id: str, **attributes: Any) -> dict[str, Any]:
    """The headers of a producer's event in binary form."""
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": "/tests",
        "type": "order.completed",
        "hookledgerapp": tenant.app_uid,
        **attributes,
    }
    return {f"ce-{name}": value for name, value in event.items()}


async def publish(
    channel: aio_pika.abc.AbstractChannel,
    stand: Stand,
    body: bytes,
    *,
    user: str | None = "",
    content_type: str | None = "application/cloudevents+json; charset=utf-8",
    headers: Mapping[str, Any] | None = None,
) -> None:
    """Publish as a producer does; `user` None leaves the user out."""
    exchange = await channel.get_exchange(stand.names.publish, ensure=False)
    message = aio_pika.Message(
        body,
        content_type=content_type,
        headers=dict(headers or {}),
        user_id=stand.broker_user if user == "" else user,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
    )
    await exchange.publish(message, "order.completed")


async def next_dead(channel: aio_pika.abc.AbstractChannel, stand: Stand) -> AbstractIncomingMessage:
    """The next dead letter, taken from its queue."""
    queue = await channel.get_queue(stand.names.dead, ensure=False)
    async with asyncio.timeout(15):
        while True:
            message = await queue.get(no_ack=True, fail=False)
            if message is not None:
                return message
            await asyncio.sleep(0.05)
