"""The change history: each fact of the registry with its actor and what it changed, the newest first."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from libs.common.contracts import history
from libs.common.contracts import registry as documents
from libs.common.contracts.operations import Time
from libs.common.contracts.registry import AnyDocument, Kind
from libs.common.domain import ids
from libs.common.domain.differences import Difference, differences
from libs.common.domain.ids import BadIdError, Prefix
from libs.common.postgres.registry import KINDS, OPERATOR, SYSTEM, FactData, RejectedFact, TokenFact, kind_of
from libs.common.runtime.http import invalid
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import Out
from services.registry.paging import Page, read_page
from services.registry.parameters import PAGE, text, texts, time

_PREFIXES: Final = {
    Kind.ORGANISATION: Prefix.ORGANISATION,
    Kind.APPLICATION: Prefix.APPLICATION,
    Kind.ENDPOINT: Prefix.ENDPOINT,
    Kind.SOURCE: Prefix.SOURCE,
    Kind.EVENT_TYPE: Prefix.EVENT_TYPE,
    Kind.API_KEY: Prefix.API_KEY,
    Kind.JOB: Prefix.JOB,
    Kind.ERASURE: Prefix.ERASURE,
}
_OBJECTLESS: Final[Mapping[str, Prefix]] = {
    **dict.fromkeys(map(str, TokenFact), Prefix.APP_TOKEN),
    **dict.fromkeys(map(str, RejectedFact), Prefix.REJECTED),
}
_NAMED: Final = (*_PREFIXES.values(), Prefix.APP_TOKEN, Prefix.REJECTED)
_ACTORS: Final = {"key": Prefix.API_KEY, "token": Prefix.APP_TOKEN}
_LARGEST_POSITION: Final = (1 << 63) - 1

OBJECT: Final = text("object", "Of this object, by its id; also of one that was deleted.")
APP: Final = text("app", "Of this application and what is in it, by id or uid; of a deleted one by id.")
ACTOR: Final = text("actor", f"By this API key or application token, by its id, or by `{OPERATOR}` or `{SYSTEM}`.")
KIND: Final = texts("kind", "Of these kinds.", sorted(KINDS))
BEFORE: Final = time("before", "Made before this time.")
AFTER: Final = time("after", "Made after this time.")
FILTER: Final = (*PAGE, OBJECT, APP, ACTOR, KIND, BEFORE, AFTER)

LIST: Final = """
    SELECT f.stream, f.version, f.position, f.app, f.kind, f.at, f.actor, f.registry_version, f.data,
        p.data AS data_before, f.examined, w.wanted
    FROM (
        SELECT e.*, row_number() OVER () AS examined FROM (
            SELECT * FROM hookledger.registry_fact
            WHERE org = $1 AND :scope = $10 AND position :beyond $2
            ORDER BY position :direction LIMIT :most
        ) e ORDER BY e.position :direction
    ) f
        LEFT JOIN hookledger.registry_fact p ON p.stream = f.stream AND p.version = f.version - 1
        CROSS JOIN LATERAL (SELECT
            ($4::uuid IS NULL OR f.stream = $4) AND ($5::uuid IS NULL OR f.app = $5)
            AND ($6::text IS NULL OR f.actor = $6) AND ($7::text[] IS NULL OR f.kind = ANY($7))
            AND ($8::timestamptz IS NULL OR f.at < $8) AND ($9::timestamptz IS NULL OR f.at > $9) AS wanted) w
    WHERE w.wanted OR f.examined = :most
    ORDER BY f.position :direction LIMIT $3
"""


class ActorOut(Out):
    """Who changed it: an API key, an application token, the operator or the system itself."""

    type: str
    id: str | None


class ChangeOut(Out):
    """A field that is not what it was; `path` is its name after those of the objects that it is in."""

    path: tuple[str, ...]
    old: Any
    new: Any


class AuditEntryOut(Out):
    """A change. `version` is the object's, `registryVersion` that of all."""

    id: str
    kind: str
    at: Time
    actor: ActorOut
    object_id: str
    uid: str | None
    app_id: str | None
    version: int
    registry_version: int
    reason: str | None
    changes: list[ChangeOut]


async def list_all(call: Call) -> Answer:
    """List the changes, the newest first."""
    page = read_page(call, descending=True)
    found, app, actor, kinds = _queried_object(call), await _queried_app(call), _queried_actor(call), call.asked(KIND)
    scope, value = _scope(found, app, actor, kinds)
    rows = await call.connection.fetch(
        page.directed(LIST, scope=scope),
        call.caller.org,
        _bound(page),
        page.fetched,
        found,
        app,
        actor,
        kinds,
        call.asked(BEFORE),
        call.asked(AFTER),
        value if value is not None else call.caller.org,
    )
    return ok(page.sifted(rows, _out, _key))


def _scope(
    found: UUID | None, app: UUID | None, actor: str | None, kinds: list[str] | None
) -> tuple[str, UUID | str | None]:
    """Among which entries to look, each by an index of its own: the fewest, most likely."""
    kind = kinds[0] if kinds is not None and len(kinds) == 1 else None
    scopes = {"stream": found, "actor": actor, "app": app, "kind": kind}
    return next(((column, value) for column, value in scopes.items() if value is not None), ("org", None))


def actor_out(actor: str) -> ActorOut:
    """An actor as the API shows it."""
    name, _, identity = actor.partition(":")
    return ActorOut(type=name, id=ids.encode(_ACTORS[name], UUID(identity)) if identity else None)


def _bound(page: Page) -> int:
    """The position beyond which the page lies: the number that an entry's id spells."""
    return min(page.bound(Prefix.CHANGE).int, _LARGEST_POSITION)


def _queried_object(call: Call) -> UUID | None:
    named = call.asked(OBJECT)
    if named is None:
        return None
    for prefix in _NAMED:
        if named.startswith(f"{prefix}_"):
            try:
                return ids.decode(prefix, named)
            except BadIdError:
                break
    raise invalid(["query", "object"], f"it is an id that begins with one of {', '.join(_NAMED)}")


async def _queried_app(call: Call) -> UUID | None:
    named = call.asked(APP)
    if named is None:
        return None
    try:
        return ids.decode(Prefix.APPLICATION, named)  # also a deleted one's
    except BadIdError:
        return (await objects.require(call, Kind.APPLICATION, named)).id


def _queried_actor(call: Call) -> str | None:
    named = call.asked(ACTOR)
    if named is None or named in {OPERATOR, SYSTEM}:
        return named
    for name, prefix in _ACTORS.items():
        try:
            return f"{name}:{ids.decode(prefix, named)}"
        except BadIdError:
            continue
    raise invalid(["query", "actor"], f"it is the id of an API key or token, or {OPERATOR}, or {SYSTEM}")


def _key(row: asyncpg.Record) -> str:
    return ids.encode(Prefix.CHANGE, UUID(int=row["position"]))


def _out(row: asyncpg.Record) -> AuditEntryOut:
    data = msgspec.json.decode(row["data"], type=FactData)
    before = msgspec.json.decode(row["data_before"], type=FactData) if row["data_before"] is not None else None
    kind = kind_of(row["kind"])
    found = differences({}, msgspec.json.decode(data.document)) if kind is None else _changes(kind, before, data)
    return AuditEntryOut(
        id=_key(row),
        kind=row["kind"],
        at=row["at"],
        actor=actor_out(row["actor"]),
        object_id=ids.encode(_OBJECTLESS[row["kind"]] if kind is None else _PREFIXES[kind], row["stream"]),
        uid=data.uid,
        app_id=ids.encode(Prefix.APPLICATION, row["app"]) if row["app"] is not None else None,
        version=row["version"],
        registry_version=row["registry_version"],
        reason=data.reason,
        changes=[ChangeOut(path=each.path, old=each.old, new=each.new) for each in found],
    )


def _changes(kind: Kind, before: FactData | None, after: FactData) -> list[Difference]:
    old: AnyDocument | None = documents.decode(kind, bytes(before.document)) if before is not None else None
    new = documents.decode(kind, bytes(after.document))
    return history.changes(old, new, old_uid=before.uid if before is not None else None, new_uid=after.uid)
