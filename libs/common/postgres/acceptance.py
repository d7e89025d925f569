"""Writing accepted messages: with their bodies, their first facts and, unless they go one way only, their outbox rows.

The one place where a message comes into being, whatever way it came in.
"""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final
from uuid import UUID

from libs.common.contracts import ledger
from libs.common.domain.facts import MessageAccepted, Origin
from libs.common.domain.message import Message
from libs.common.postgres.pool import Connection, Pool
from libs.common.runtime.clock import entropy

_SALT_BYTES: Final = 16
_NONE: Final[Mapping[UUID, str]] = MappingProxyType({})
_ROWS: Final = """
    message AS (
        INSERT INTO hookledger.message (id, org, app, event_type, channels, tags, event_id, origin, source,
            content_type, body_hash, body_bytes, publish, ordering_key, deliver_at, registry_version, accepted_at,
            schema_violations)
        SELECT u.id, u.org, u.app, u.event_type, string_to_array(u.channels, ','), string_to_array(u.tags, ','),
            u.event_id, u.origin, u.source, u.content_type, u.body_hash, u.body_bytes, u.publish, u.ordering_key,
            u.deliver_at, $18, $19, u.schema_violations::jsonb
        FROM /*if*/ unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::uuid[], $9::text[], $10::bytea[], $11::int[], $12::bool[], $21::text[], $22::text[],
            $23::timestamptz[], $24::text[])
            AS u (id, org, app, event_type, channels, event_id, origin, source, content_type, body_hash, body_bytes,
                publish, tags, ordering_key, deliver_at, schema_violations)
    ), body AS (
        INSERT INTO hookledger.message_body (message, salt, body)
        SELECT u.id, u.salt, u.body
        FROM /*if*/ unnest($1::uuid[], $13::bytea[], $14::bytea[]) AS u (id, salt, body)
    ), fact AS (
        INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
        SELECT u.id, 1, $20, u.app, u.kind, u.schema, $19, u.data
        FROM /*if*/ unnest($1::uuid[], $3::uuid[], $15::text[], $16::smallint[], $17::bytea[])
            AS u (id, app, kind, schema, data)
    )
"""
_OUTBOX: Final = """
    , outbox AS (
        INSERT INTO hookledger.outbox (message, app, accepted_at)
        SELECT u.id, u.app, $19 FROM /*if*/ unnest($1::uuid[], $3::uuid[]) AS u (id, app)
    )
"""
_INSERT: Final = f"WITH {_ROWS} {_OUTBOX} SELECT"
_INSERT_UNSENT: Final = f"WITH {_ROWS} SELECT"
# Its rows are written once if that version is there, and not at all if it is not.
_INSERT_IF_CURRENT: Final = f"""
    WITH registry AS MATERIALIZED (SELECT version FROM hookledger.registry_version WHERE version = $18),
        {_ROWS} {_OUTBOX}
    SELECT count(*) FROM registry
""".replace("/*if*/", "registry,")  # noqa: S608  of constants


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
    salts = [entropy(_SALT_BYTES) for _ in messages]
    facts = _facts(messages)
    first = messages[0]  # version and time are the batch's
    return (
        [message.id for message in messages],
        [message.org for message in messages],
        [message.app for message in messages],
        [message.event_type for message in messages],
        [_joined(message.channels) for message in messages],
        [message.event_id for message in messages],
        [message.origin for message in messages],
        [message.source for message in messages],
        [message.content_type for message in messages],
        [hashlib.sha256(salt + message.body).digest() for salt, message in zip(salts, messages, strict=True)],
        [len(message.body) for message in messages],
        [message.publish for message in messages],
        salts,
        [message.body for message in messages],
        [kind for kind, _, _ in facts],
        [schema for _, schema, _ in facts],
        [data for _, _, data in facts],
        first.registry_version,
        first.accepted_at,
        epoch,
        [_joined(message.tags) for message in messages],
        [message.ordering_key for message in messages],
        [message.deliver_at for message in messages],
        [violations.get(message.id) for message in messages] if violations else [None] * len(messages),
    )


def _joined(names: frozenset[str]) -> str:
    return ",".join(sorted(names)) if names else ""


def _facts(messages: Sequence[Message]) -> list[tuple[str, int, bytes]]:
    """Kind, schema number and data of each message's first fact; a batch has few different ones, each encoded once."""
    encoded: dict[tuple[str, Origin, UUID | None, bool], tuple[str, int, bytes]] = {}
    facts = []
    for message in messages:
        said = message.event_type, message.origin, message.source, message.publish
        fact = encoded.get(said)
        if fact is None:
            fact = encoded[said] = ledger.encode(_fact(message))
        facts.append(fact)
    return facts


def _fact(message: Message) -> MessageAccepted:
    return MessageAccepted(
        at=message.accepted_at,
        event_type=message.event_type,
        origin=message.origin,
        source=message.source,
        registry_version=message.registry_version,
        publish=message.publish,
    )
