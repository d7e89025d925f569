"""A registry of many endpoints: copied into the database as the registry's service would have written each."""

import base64
import os
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from bench.world import World
from deploy.stack.installation import master_key
from libs.common.contracts import registry as documents
from libs.common.contracts.registry import ApplicationDocument, EndpointDocument, KeyReference, Kind
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.registry import SCHEMA, FactData
from libs.common.runtime.clock import new_id
from libs.common.runtime.sealing import MasterKeys

PER_APPLICATION: Final = 10
_OBJECT: Final = (
    *("id", "kind", "org", "app", "version", "registry_version", "created_at", "updated_at", "data"),
)  # fmt: skip
_FACT: Final = (
    *("stream", "version", "epoch", "org", "app", "endpoint", "kind", "schema", "at", "actor", "registry_version"),
    "data",
)


async def furnish(world: World, endpoints: int, *, first: int) -> list[str]:
    """Add so many endpoints in applications of ten, in one change of the registry; the ids of the applications.

    Their URLs are numbered from `first` on.
    """
    database = world.database
    org = await database.fetchval("SELECT id FROM hookledger.registry_object WHERE kind = 'organisation'")
    keys = MasterKeys.parse(master_key(world.installation.folder))
    applications = [new_id() for _ in range(endpoints // PER_APPLICATION)]
    made: list[tuple[UUID, Kind, UUID | None, str]] = [
        (app, Kind.APPLICATION, None, documents.encode(ApplicationDocument(name="growth"))) for app in applications
    ]
    secrets: list[tuple[UUID, UUID, bytes]] = []
    owners = [app for app in applications for _ in range(PER_APPLICATION)]
    for number, app in enumerate(owners, start=first):
        endpoint = new_id()
        secret = KeyReference(id=new_id(), fingerprint="growth")
        document = EndpointDocument(url=f"{world.sink.url}/growth/{number}", keys=(secret,))
        made.append((endpoint, Kind.ENDPOINT, app, documents.encode(document)))
        plain = b"whsec_" + base64.b64encode(os.urandom(24))
        secrets.append((secret.id, endpoint, keys.seal(plain, owner=endpoint, org=org)))
    async with database.transaction():
        change = await database.fetchrow("""
            UPDATE hookledger.registry_version SET version = version + 1
            RETURNING version, clock_timestamp(), (SELECT max(epoch) FROM hookledger.ledger_epoch)
        """)
        assert change is not None
        version, at, epoch = change
        await _copy(world, "secret", ("id", "owner", "org", "sealed", "created_at"),
            ((key, owner, org, sealed, at) for key, owner, sealed in secrets))  # fmt: skip
        await _copy(world, "registry_object", _OBJECT,
            ((name, kind, org, app, 1, version, at, at, text) for name, kind, app, text in made))  # fmt: skip
        await _copy(world, "registry_fact", _FACT, _facts(made, org, version, at, epoch))
    return [ids.encode(Prefix.APPLICATION, app) for app in applications]


def _facts(
    made: list[tuple[UUID, Kind, UUID | None, str]], org: UUID, version: int, at: datetime, epoch: int
) -> Iterator[tuple[Any, ...]]:
    for name, kind, app, text in made:
        is_endpoint = kind is Kind.ENDPOINT
        data = msgspec.json.encode(FactData(document=msgspec.Raw(text.encode())))
        fact = f"{kind.value.capitalize()}Created"
        yield (
            *(name, 1, epoch, org, app or name, name if is_endpoint else None, fact, SCHEMA, at, "operator", version),
            data,
        )


async def _copy(world: World, table: str, columns: tuple[str, ...], records: Iterator[tuple[Any, ...]]) -> None:
    await world.database.copy_records_to_table(table, schema_name="hookledger", columns=columns, records=records)
