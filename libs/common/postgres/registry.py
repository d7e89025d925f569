"""Changing the registry: each change is a fact in `registry_fact` and, in the same transaction, a row of its fold.

A writer first takes the next version of the counter row, so that writers come one after the other and versions commit
in order; what it reads after that stays true until it commits.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from libs.common.contracts import registry as documents
from libs.common.contracts.registry import AnyDocument, Kind, RegistryObject
from libs.common.postgres.pool import Connection

SCHEMA: Final = 1
OPERATOR: Final = "operator"
SYSTEM: Final = "system"

_NOUNS: Final[Mapping[Kind, str]] = {
    Kind.ORGANISATION: "Organisation",
    Kind.APPLICATION: "Application",
    Kind.ENDPOINT: "Endpoint",
    Kind.SOURCE: "Source",
    Kind.EVENT_TYPE: "EventType",
    Kind.API_KEY: "ApiKey",
    Kind.JOB: "Job",
    Kind.ERASURE: "Erasure",
}


class Verb(StrEnum):
    """What happened to an object: the second half of a fact's kind, as in `EndpointDisabled`."""

    CREATED = "Created"
    UPDATED = "Updated"
    DISABLED = "Disabled"
    ENABLED = "Enabled"
    FAILING = "Failing"
    RECOVERED = "Recovered"
    SECRET_ROTATED = "SecretRotated"  # noqa: S105  the name of a fact
    CANCELLED = "Cancelled"
    DELETED = "Deleted"


_KINDS: Final[Mapping[str, tuple[Kind, Verb]]] = {
    f"{noun}{verb}": (kind, verb) for kind, noun in _NOUNS.items() for verb in Verb
}


class TokenFact(StrEnum):
    """What happened to application tokens. They are no registry objects: the fold passes these facts over."""

    ISSUED = "AppTokenIssued"
    REVOKED = "AppTokenRevoked"
    ALL_REVOKED = "AppTokensRevoked"


class RejectedFact(StrEnum):
    """What was done with a rejected request, which is no registry object either."""

    REVERIFIED = "RejectedReverified"
    ADMITTED = "RejectedAdmitted"


OBJECTLESS: Final = frozenset({*TokenFact, *RejectedFact})
"""Kinds of facts that change no registry object: part of the trail, and of no fold."""
KINDS: Final = frozenset({*_KINDS, *OBJECTLESS})
"""Every kind of fact."""


class FactData(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """`registry_fact.data`: the object as it is after the fact. Secrets stand in it by id and fingerprint only."""

    document: msgspec.Raw
    uid: str | None = None
    reason: str | None = None
    fail_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryFact:
    """A row of `registry_fact`."""

    stream: UUID
    version: int
    org: UUID
    app: UUID | None
    kind: str
    at: datetime
    registry_version: int
    data: bytes


class Changes:
    """The changes of one transaction, made by one actor."""

    def __init__(self, connection: Connection, actor: str) -> None:
        self.connection = connection
        self.actor = actor
        self.made: list[RegistryObject] = []
        """The objects as they are after the changes, oldest change first."""

    async def create(
        self, kind: Kind, identity: UUID, document: AnyDocument, *, org: UUID, app: UUID | None = None,
        uid: str | None = None,
    ) -> RegistryObject:  # fmt: skip
        """Create an object.

        Raises:
            asyncpg.UniqueViolationError: another live object of this kind has the uid, or another key the hash.
        """
        version, at = await self._next(None)
        created = RegistryObject(
            id=identity,
            kind=kind,
            org=org,
            app=app,
            uid=uid,
            version=1,
            registry_version=version,
            created_at=at,
            updated_at=at,
            deleted_at=None,
            document=document,
        )
        return await self._write(created, Verb.CREATED)

    async def update(
        self,
        old: RegistryObject,
        document: AnyDocument,
        *,
        uid: str | None,
        verb: Verb = Verb.UPDATED,
        reason: str | None = None,
        fail_since: datetime | None = None,
    ) -> RegistryObject:
        """Give an object a new document and uid. `old` was read in this transaction.

        Raises:
            asyncpg.UniqueViolationError: another live object of this kind has the uid.
        """
        version, at = await self._next(old)
        new = replace(
            old, uid=uid, document=document, version=old.version + 1, registry_version=version, updated_at=at
        )  # fmt: skip
        return await self._write(new, verb, reason, fail_since)

    async def delete(self, old: RegistryObject) -> RegistryObject:
        """Delete an object: its row stays, and its uid becomes free."""
        version, at = await self._next(old)
        new = replace(old, version=old.version + 1, registry_version=version, updated_at=at, deleted_at=at)
        return await self._write(new, Verb.DELETED)

    async def record(
        self, kind: TokenFact, *, stream: UUID, version: int, org: UUID, app: UUID, data: FactData
    ) -> None:
        """Append a fact on application tokens. No registry object changes, so the registry's version stays."""
        row = await self.connection.fetchrow("SELECT version, clock_timestamp() AS at FROM hookledger.registry_version")
        assert row is not None
        await self._append(
            stream=stream,
            version=version,
            org=org,
            app=app,
            endpoint=None,
            kind=kind,
            at=row["at"],
            registry_version=row["version"],
            data=data,
        )

    async def _next(self, old: RegistryObject | None) -> tuple[int, datetime]:
        """The registry's next version, and the time of the change: the database's, never decreasing in a stream."""
        row = await self.connection.fetchrow(
            """
            UPDATE hookledger.registry_version SET version = version + 1
            RETURNING version, greatest(clock_timestamp(), $1::timestamptz) AS at
            """,
            old.updated_at if old is not None else None,
        )
        assert row is not None
        return row["version"], row["at"]

    async def _write(
        self, new: RegistryObject, verb: Verb, reason: str | None = None, fail_since: datetime | None = None
    ) -> RegistryObject:
        text = documents.encode(new.document)
        await self._append(
            stream=new.id,
            version=new.version,
            org=new.org,
            app=new.id if new.kind is Kind.APPLICATION else new.app,
            endpoint=new.id if new.kind is Kind.ENDPOINT else None,
            kind=_NOUNS[new.kind] + verb,
            at=new.updated_at,
            registry_version=new.registry_version,
            data=FactData(document=msgspec.Raw(text.encode()), uid=new.uid, reason=reason, fail_since=fail_since),
        )
        await self.connection.execute(
            """
            INSERT INTO hookledger.registry_object
                (id, kind, org, app, uid, version, registry_version, created_at, updated_at, deleted_at, data)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            ON CONFLICT (id) DO UPDATE SET
                uid = excluded.uid, version = excluded.version, registry_version = excluded.registry_version,
                updated_at = excluded.updated_at, deleted_at = excluded.deleted_at, data = excluded.data
            """,
            new.id,
            new.kind,
            new.org,
            new.app,
            new.uid,
            new.version,
            new.registry_version,
            new.created_at,
            new.updated_at,
            new.deleted_at,
            text,
        )
        self.made.append(new)
        return new

    async def _append(
        self, *, stream: UUID, version: int, org: UUID, app: UUID | None, endpoint: UUID | None, kind: str,
        at: datetime, registry_version: int, data: FactData,
    ) -> None:  # fmt: skip
        await self.connection.execute(
            """
            INSERT INTO hookledger.registry_fact
                (stream, version, epoch, org, app, endpoint, kind, schema, at, actor, registry_version, data)
            SELECT $1, $2, max(epoch), $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM hookledger.ledger_epoch
            """,
            stream,
            version,
            org,
            app,
            endpoint,
            kind,
            SCHEMA,
            at,
            self.actor,
            registry_version,
            msgspec.json.encode(data),
        )


@asynccontextmanager
async def changing(connection: Connection, actor: str) -> AsyncIterator[Changes]:
    """A transaction (inside another one: a savepoint) in which this connection alone changes the registry.

    Args:
        connection: with the registry's role.
        actor: who changes it: `key:<API key id>`, `operator` or `system`.
    """
    async with connection.transaction():
        await connection.execute("SELECT FROM hookledger.registry_version FOR UPDATE")
        yield Changes(connection, actor)


def kind_of(fact: str) -> Kind | None:
    """The kind of object that a fact of that kind is about; None for one that changes none."""
    known = _KINDS.get(fact)
    return known[0] if known is not None else None


def fold(facts: Iterable[RegistryFact]) -> RegistryObject:
    """The object after all facts of its stream, in the order of their versions.

    Raises:
        ValueError: the stream is empty or holds a kind that this version does not know.
    """
    folded: RegistryObject | None = None
    for fact in facts:
        known = _KINDS.get(fact.kind)
        if known is None:
            raise ValueError(f"{fact.kind}: written by a newer version of Hookledger")
        kind, verb = known
        data = msgspec.json.decode(fact.data, type=FactData)
        folded = RegistryObject(
            id=fact.stream,
            kind=kind,
            org=fact.org,
            app=None if kind is Kind.APPLICATION else fact.app,
            uid=data.uid,
            version=folded.version + 1 if folded is not None else 1,
            registry_version=fact.registry_version,
            created_at=folded.created_at if folded is not None else fact.at,
            updated_at=fact.at,
            deleted_at=fact.at if verb is Verb.DELETED else None,
            document=documents.decode(kind, bytes(data.document)),
        )
    if folded is None:
        raise ValueError("a registry object's stream begins with its creation")
    return folded
