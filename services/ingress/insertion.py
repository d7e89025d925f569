"""A batch of messages, written in one statement with bodies, facts and outbox rows."""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from libs.common.contracts import ledger
from libs.common.domain import ids
from libs.common.domain.facts import MessageAccepted
from libs.common.domain.message import Message
from libs.common.postgres.pool import Connection
from libs.common.runtime.clock import random_bytes
from libs.common.runtime.schemas.payload import Violation
from services.ingress.candidate import Accepted, Candidate

_SALT_BYTES: Final = 16


def message_of(candidate: Candidate, version: int, at: datetime) -> Message:
    """The message that `candidate` becomes, accepted at `at` by the registry's `version`."""
    born_ms = int(at.timestamp() * 1000)
    return Message(
        id=ids.time_ordered(born_ms, random_bytes(10)),
        org=candidate.org,
        app=candidate.app,
        event_type=candidate.event_type,
        body=candidate.body,
        accepted_at=at,
        registry_version=version,
        origin=candidate.origin,
        content_type=candidate.content_type,
        channels=frozenset(candidate.channels),
        event_id=candidate.event_id,
        source=candidate.source,
        tags=frozenset(candidate.tags),
        ordering_key=candidate.ordering_key,
        deliver_at=candidate.deliver_at,
        erase_body_at=_erase_at(candidate, at),
        publish=candidate.publish,
    )


def _erase_at(candidate: Candidate, at: datetime) -> datetime | None:
    """From when on the body is erased: it is kept for its time from when it was to be delivered."""
    if candidate.keep_body is None:
        return None
    return max(at, candidate.deliver_at or at) + candidate.keep_body


async def insert(connection: Connection, accepted: Sequence[Accepted], *, epoch: int) -> None:
    """Write messages of one moment and one registry version, in the transaction that accepts them."""
    messages = [each.message for each in accepted]
    salts = [random_bytes(_SALT_BYTES) for _ in messages]
    facts = [ledger.encode(_fact(message)) for message in messages]
    first = messages[0]  # version and time are the batch's
    await connection.execute(
        """
        WITH message AS (
            INSERT INTO hookledger.message (id, org, app, event_type, channels, tags, event_id, origin, source,
                content_type, body_hash, body_bytes, publish, ordering_key, deliver_at, registry_version, accepted_at,
                schema_violations)
            SELECT u.id, u.org, u.app, u.event_type, string_to_array(u.channels, ','), string_to_array(u.tags, ','),
                u.event_id, u.origin, u.source, u.content_type, u.body_hash, u.body_bytes, u.publish, u.ordering_key,
                u.deliver_at, $18, $19, u.schema_violations::jsonb
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[],
                $9::text[], $10::bytea[], $11::int[], $12::bool[], $21::text[], $22::text[], $23::timestamptz[],
                $24::text[])
                AS u (id, org, app, event_type, channels, event_id, origin, source, content_type, body_hash, body_bytes,
                    publish, tags, ordering_key, deliver_at, schema_violations)
        ), body AS (
            INSERT INTO hookledger.message_body (message, salt, body)
            SELECT u.id, u.salt, u.body
            FROM unnest($1::uuid[], $13::bytea[], $14::bytea[]) AS u (id, salt, body)
        ), fact AS (
            INSERT INTO hookledger.fact (stream, version, epoch, app, kind, schema, at, data)
            SELECT u.id, 1, $20, u.app, u.kind, u.schema, $19, u.data
            FROM unnest($1::uuid[], $3::uuid[], $15::text[], $16::smallint[], $17::bytea[])
                AS u (id, app, kind, schema, data)
        )
        INSERT INTO hookledger.outbox (message, app, accepted_at)
        SELECT u.id, u.app, $19 FROM unnest($1::uuid[], $3::uuid[]) AS u (id, app)
        """,
        [message.id for message in messages],
        [message.org for message in messages],
        [message.app for message in messages],
        [message.event_type for message in messages],
        [",".join(sorted(message.channels)) for message in messages],
        [message.event_id for message in messages],
        [str(message.origin) for message in messages],
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
        [",".join(sorted(message.tags)) for message in messages],
        [message.ordering_key for message in messages],
        [message.deliver_at for message in messages],
        [_violations_text(each.violations) for each in accepted],
    )
    expiring = [(message.id, message.erase_body_at) for message in messages if message.erase_body_at is not None]
    if expiring:
        await connection.executemany("INSERT INTO hookledger.body_expiry (message, erase_at) VALUES ($1, $2)", expiring)


def _violations_text(violations: tuple[Violation, ...]) -> str | None:
    # PostgreSQL's jsonb holds no NUL.
    return msgspec.json.encode(violations).decode().replace("\\u0000", "") if violations else None


def _fact(message: Message) -> MessageAccepted:
    return MessageAccepted(
        at=message.accepted_at,
        event_type=message.event_type,
        origin=message.origin,
        source=message.source,
        registry_version=message.registry_version,
        publish=message.publish,
    )
