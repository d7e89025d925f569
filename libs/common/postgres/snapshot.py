"""The registry as ingress and dispatcher know it: read from Postgres, kept current by catching up.

The registry's version is one counter row that every change updates in its transaction, so versions commit in order, and
the rows changed since version N bring a snapshot from N to now. Changes are announced on the broker; a snapshot that
hears nothing still catches up when a message carries a newer version than its own.
"""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final
from uuid import UUID

import asyncpg

from libs.common.contracts import configuration
from libs.common.contracts import registry as documents
from libs.common.contracts.registry import (
    ApiKeyDocument,
    ApplicationDocument,
    EndpointDocument,
    Kind,
    OrganisationDocument,
    RegistryObject,
    SourceDocument,
)
from libs.common.domain.endpoint import Endpoint
from libs.common.postgres.pool import Connection, Pool
from libs.common.runtime import clock
from libs.common.runtime.logs import logger
from libs.common.runtime.metrics import SNAPSHOT_AGE_SECONDS, SNAPSHOT_LAG
from libs.common.runtime.sealing import MasterKeys, SealError

_LOG: Final = logger("snapshot")
_VERSION: Final = "SELECT version FROM hookledger.registry_version"
_VERSION_AND_TIME: Final = "SELECT version, clock_timestamp() AS at FROM hookledger.registry_version"
READ_SECONDS: Final = 15.0
_NONE: Final[Mapping[UUID, Endpoint]] = MappingProxyType({})


class RegistrySnapshot:
    """All registry objects by id, deleted ones included, with the look-ups that the hot paths need."""

    def __init__(self, pool: Pool, master_keys: MasterKeys) -> None:
        self._pool = pool
        self._master_keys = master_keys
        self._lock = asyncio.Lock()
        self._endpoints: dict[UUID, dict[UUID, Endpoint]] = {}
        self._applications_of: dict[UUID, set[UUID]] = {}
        self._endpoints_of: dict[UUID, set[UUID]] = {}
        self._objects: dict[UUID, RegistryObject] = {}
        self._named: dict[tuple[Kind, UUID, UUID | None, str], UUID] = {}
        self._keys: dict[str, UUID] = {}
        self._broker_users: dict[str, UUID] = {}
        self._secrets: dict[UUID, str] = {}
        self.version = -1
        self._heard = -1
        self._read_at = clock.monotonic()
        SNAPSHOT_LAG.set_function(lambda: max(0, self._heard - self.version))
        SNAPSHOT_AGE_SECONDS.set_function(lambda: clock.monotonic() - self._read_at)

    def get(self, kind: Kind, identity: UUID) -> RegistryObject | None:
        """The object of that kind and id, unless it was deleted."""
        found = self._objects.get(identity)
        return found if found is not None and found.kind is kind and found.deleted_at is None else None

    def find(self, kind: Kind, org: UUID, uid: str, *, app: UUID | None = None) -> RegistryObject | None:
        """The object that users named `uid`."""
        identity = self._named.get((kind, org, app, uid))
        return self.get(kind, identity) if identity is not None else None

    def api_key(self, sha256_hex: str) -> RegistryObject | None:
        """The API key with that hash; whether it has expired is for the caller to judge."""
        identity = self._keys.get(sha256_hex)
        return self.get(Kind.API_KEY, identity) if identity is not None else None

    def organisation_of(self, broker_user: str) -> RegistryObject | None:
        """The organisation that the broker's user publishes for."""
        identity = self._broker_users.get(broker_user)
        return self.get(Kind.ORGANISATION, identity) if identity is not None else None

    def endpoints(self, app: UUID) -> Mapping[UUID, Endpoint]:
        """The endpoints of an application that are not deleted, disabled ones included."""
        return self._endpoints.get(app, _NONE)

    def endpoint(self, identity: UUID) -> Endpoint | None:
        """An endpoint by id, unless it or its application was deleted."""
        found = self.get(Kind.ENDPOINT, identity)
        return None if found is None or found.app is None else self.endpoints(found.app).get(identity)

    def wanted(self, identity: UUID) -> Endpoint | None:
        """An endpoint that messages may go to: it is there, and enabled."""
        found = self.endpoint(identity)
        return found if found is not None and found.enabled else None

    def holds(self, identity: UUID) -> bool:
        """Whether what is exhausted at this endpoint keeps its place in its ordered lane."""
        found = self.endpoint(identity)
        return found is not None and found.retry.holds

    def secrets(self, source: RegistryObject, at: datetime) -> list[str]:
        """The opened secrets of a source that are in force, the newest first."""
        assert isinstance(source.document, SourceDocument)
        return [
            self._secrets[key.id]
            for key in source.document.keys
            if key.id in self._secrets and (key.expires_at is None or at < key.expires_at)
        ]

    async def catch_up(self, version: int | None = None) -> None:
        """Be at least at `version`; without one, at whatever is committed now.

        Raises:
            asyncpg.PostgresError, OSError, TimeoutError: Postgres does not answer.
        """
        if version is not None and self.version >= version:
            return
        self._heard = max(self._heard, version or -1)
        async with asyncio.timeout(READ_SECONDS), self._lock:
            if version is None or self.version < version:
                await self._read()

    async def is_current(self, connection: Connection) -> bool:
        """Whether nothing is committed that this snapshot does not know, so that what was read before is not newer."""
        version: int = await connection.fetchval(_VERSION)
        return version == self.version

    async def _read(self) -> None:
        async with self._pool.acquire() as connection:
            asked = clock.monotonic()
            row = await connection.fetchrow(_VERSION_AND_TIME)  # a transaction would be two round trips more
            assert row is not None, "the migration has made it"
            clock.follow(row["at"], asked=asked)
            self._heard = max(self._heard, row["version"])
            if row["version"] != self.version:
                await self._read_changes(connection)
            self._read_at = asked

    async def _read_changes(self, connection: Connection) -> None:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            version = await connection.fetchval(_VERSION)
            rows = await connection.fetch(
                """
                SELECT id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data
                FROM hookledger.registry_object
                WHERE registry_version > $1 AND kind <> ALL($2)
                """,
                self.version,
                list(documents.REQUESTS),
            )
            owners = [row["id"] for row in rows]
            sealed = await connection.fetch(
                "SELECT id, owner, org, sealed FROM hookledger.secret WHERE owner = ANY($1)", owners
            )
        for row in sealed:
            self._open(row)
        changed = [object_of(row) for row in rows]
        for item in changed:
            self._index(item)
        self._rebuild_endpoints(changed)
        self.version = version
        _LOG.info("snapshot.read", version=version, changed=len(changed))

    def _open(self, row: asyncpg.Record) -> None:
        try:
            opened = self._master_keys.open(row["sealed"], owner=row["owner"], org=row["org"])
            self._secrets[row["id"]] = opened.decode()
        except SealError as error:
            _LOG.error("snapshot.secret_sealed", owner=str(row["owner"]), reason=str(error))

    def _index(self, item: RegistryObject) -> None:
        old = self._objects.get(item.id)
        if old is not None and old.uid is not None:
            name = old.kind, old.org, old.app, old.uid
            if self._named.get(name) == old.id:  # another object that changed as well may have taken it by now
                del self._named[name]
        self._objects[item.id] = item
        if item.kind is Kind.APPLICATION:
            self._applications_of.setdefault(item.org, set()).add(item.id)
        elif item.kind is Kind.ENDPOINT and item.app is not None:
            self._endpoints_of.setdefault(item.app, set()).add(item.id)
        live = item.deleted_at is None
        if item.uid is not None and live:
            self._named[item.kind, item.org, item.app, item.uid] = item.id
        match item.document:
            case ApiKeyDocument(hash=digest):
                self._keys[digest] = item.id
            case OrganisationDocument() if item.uid is not None and live:
                self._broker_users[item.uid] = item.id
            case _:
                pass

    def _rebuild_endpoints(self, changed: list[RegistryObject]) -> None:
        """Make the domain's endpoints anew wherever they, their application or their organisation changed."""
        apps = {item.id for item in changed if item.kind is Kind.APPLICATION}
        orgs = {item.id for item in changed if item.kind is Kind.ORGANISATION}
        touched = [item for item in changed if item.kind is Kind.ENDPOINT]
        apps.update(*(self._applications_of.get(org, ()) for org in orgs))
        within = set[UUID]().union(*(self._endpoints_of.get(app, ()) for app in apps))
        for item in touched:
            if item.id not in within:
                self._place_endpoint(item)
        for identity in within:
            self._place_endpoint(self._objects[identity])

    def _place_endpoint(self, item: RegistryObject) -> None:
        assert item.app is not None
        siblings = self._endpoints.setdefault(item.app, {})
        organisation, application = self.get(Kind.ORGANISATION, item.org), self.get(Kind.APPLICATION, item.app)
        if item.deleted_at is not None or organisation is None or application is None:
            siblings.pop(item.id, None)
            return
        assert isinstance(item.document, EndpointDocument)
        assert isinstance(organisation.document, OrganisationDocument)
        assert isinstance(application.document, ApplicationDocument)
        siblings[item.id] = configuration.endpoint(item, organisation.document, application.document, self._secrets)


def object_of(row: asyncpg.Record) -> RegistryObject:
    """A row of `registry_object`."""
    kind = Kind(row["kind"])
    return RegistryObject(
        id=row["id"],
        kind=kind,
        org=row["org"],
        app=row["app"],
        uid=row["uid"],
        version=row["version"],
        registry_version=row["registry_version"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        deleted_at=row["deleted_at"],
        document=documents.decode(kind, row["data"]),
    )
