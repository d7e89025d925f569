"""Writing accepted messages: with their bodies, their first facts and, unless they go one way only, their outbox rows.

The one place where a message comes into being, whatever way it came in.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from uuid import UUID

from libs.common.contracts import ledger
from libs.common.domain.facts import MessageAccepted, Origin
from libs.common.domain.message import Message
from libs.common.postgres.pool import Connection, Pool
from libs.common.postgres.rows import Columns, Shared
from libs.common.runtime.clock import entropy

_SALT_BYTES: Final = 16
_NONE: Final[Mapping[UUID, str]] = MappingProxyType({})
_MESSAGES: Final = Columns(
    id="uuid",
    app="uuid",
    event_id="text",
    body_hash="bytea",
    body_bytes="int",
    ordering_key="text",
    deliver_at="timestamptz",
    schema_violations="text",
    like_no="int",
)
_LIKE: Final = Columns(
    org="uuid",
    event_type="text",
    channels="text",
    tags="text",
    origin="text",
    source="uuid",
    content_type="text",
    publish="bool",
    fact="bytea",
)
_BODIES: Final = Columns(message="uuid", salt="bytea", body="bytea")
_FIRST_LIKE: Final = 5 + len(_MESSAGES)
_ROWS: Final = f"""
    u AS MATERIALIZED (
        SELECT u.*, {_LIKE.picked("u.like_no", first=_FIRST_LIKE)} FROM /*if*/ {_MESSAGES.unnested("u", first=5)}
    ), message AS (
        INSERT INTO hookledger.message (id, org, app, event_type, channels, tags, event_id, origin, source,
            content_type, body_hash, body_bytes, publish, ordering_key, deliver_at, registry_version, accepted_at,
            schema_violations)
        SELECT id, org, app, event_type, string_to_array(channels, ','), string_to_array(tags, ','), event_id, origin,
            source, content_type, body_hash, body_bytes, publish, ordering_key, deliver_at, $1, $2,
            schema_violations::jsonb
        FROM u
    ), body AS (
        INSERT INTO hookledger.message_body (message, salt, body)
        SELECT b.message, b.salt, b.body FROM /*if*/ {_BODIES.unnested("b", first=_FIRST_LIKE + len(_LIKE))}
    ), fact AS (
        INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
        SELECT id, 1, $3, app, 'MessageAccepted', $4, $2, fact FROM u
    )
"""  # noqa: S608  of constants
_OUTBOX: Final = """
    , outbox AS (INSERT INTO hookledger.outbox (message, app, accepted_at) SELECT id, app, $2 FROM u)
"""
_INSERT: Final = f"WITH {_ROWS} {_OUTBOX} SELECT"
_INSERT_UNSENT: Final = f"WITH {_ROWS} SELECT"
# Its rows are written once if that version is there, and not at all if it is not.
_INSERT_IF_CURRENT: Final = f"""
    WITH registry AS MATERIALIZED (SELECT version FROM hookledger.registry_version WHERE version = $1),
        {_ROWS} {_OUTBOX}
    SELECT count(*) FROM registry
""".replace("/*if*/", "registry,")  # noqa: S608  of constants


class _Like(NamedTuple):
    """What messages of a batch may have in common."""

    org: UUID
    event_type: str
    channels: frozenset[str]
    tags: frozenset[str]
    origin: Origin
    source: UUID | None
    content_type: str
    publish: bool


async def insert(
    connection: Connection, messages: Sequence[Message], *, epoch: int, violations: Mapping[UUID, str] = _NONE
) -> None:
    """Write messages of one moment and one registry version, in the transaction that accepts them.

    Args:
        connection: in that transaction.
        messages: at least one.
        epoch: of the ledger.
        violations: of their event type's schema, by message, as a JSON array of `{path, message}`.
    """
    await connection.execute(_INSERT, *_columns(messages, epoch, violations))


async def insert_if_current(
    pool: Pool, messages: Sequence[Message], *, epoch: int, violations: Mapping[UUID, str] = _NONE
) -> bool:
    """As `insert`, in a transaction of its own, unless the registry has another version than the messages bear.

    Returns:
        Whether they are committed.
    """
    return bool(await pool.fetchval(_INSERT_IF_CURRENT, *_columns(messages, epoch, violations)))


async def insert_unsent(connection: Connection, message: Message, *, epoch: int) -> None:
    """Write a message that is not fanned out: whoever writes it sees to where it goes."""
    await connection.execute(_INSERT_UNSENT, *_columns([message], epoch, _NONE))


def _columns(messages: Sequence[Message], epoch: int, violations: Mapping[UUID, str]) -> tuple[Any, ...]:
    """The parameters of these statements."""
    first = messages[0]  # version and time are the batch's
    like: Shared[_Like] = Shared()
    salts = [entropy(_SALT_BYTES) for _ in messages]
    rows = _MESSAGES.arrays(
        (
            message.id,
            message.app,
            message.event_id,
            hashlib.sha256(salt + message.body).digest(),
            len(message.body),
            message.ordering_key,
            message.deliver_at,
            violations.get(message.id),
            like.number(
                _Like(
                    message.org,
                    message.event_type,
                    message.channels,
                    message.tags,
                    message.origin,
                    message.source,
                    message.content_type,
                    message.publish,
                )
            ),
        )
        for message, salt in zip(messages, salts, strict=True)
    )
    fact_of = cache(partial(_first_fact, first))
    shared = _LIKE.arrays(
        (
            each.org,
            each.event_type,
            _joined(each.channels),
            _joined(each.tags),
            each.origin,
            each.source,
            each.content_type,
            each.publish,
            fact_of(each.event_type, each.origin, each.source, each.publish),
        )
        for each in like
    )
    bodies = [message.id for message in messages], salts, [message.body for message in messages]
    return first.registry_version, first.accepted_at, epoch, ledger.SCHEMA, *rows, *shared, *bodies


def _joined(names: frozenset[str]) -> str:
    return ",".join(sorted(names)) if names else ""


def _first_fact(first: Message, event_type: str, origin: Origin, source: UUID | None, publish: bool) -> bytes:  # noqa: FBT001  what a batch's facts differ in, by place
    """The data of the first fact of a message that was accepted together with `first`."""
    fact = MessageAccepted(
        at=first.accepted_at,
        event_type=event_type,
        origin=origin,
        source=source,
        registry_version=first.registry_version,
        publish=publish,
    )
    return ledger.encode(fact)[2]
