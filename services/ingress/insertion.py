"""A batch of candidates that become messages."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from libs.common.domain import ids
from libs.common.domain.message import Message
from libs.common.postgres import acceptance
from libs.common.postgres.pool import Connection, Pool
from libs.common.runtime.clock import entropy
from libs.common.runtime.schemas.payload import Violation
from services.ingress.candidate import Accepted, Candidate

_ESCAPES: Final = re.compile(r"\\(?:u0000|.)")


def message_of(candidate: Candidate, version: int, at: datetime, born_ms: int) -> Message:
    """The message that `candidate` becomes, accepted at `at`, which is `born_ms`, by the registry's `version`."""
    return Message(
        id=ids.time_ordered(born_ms, entropy(10)),
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
    await acceptance.insert(connection, messages, epoch=epoch, violations=_violations(accepted))
    expiring = [(message.id, message.erase_body_at) for message in messages if message.erase_body_at is not None]
    if expiring:
        await connection.executemany("INSERT INTO hookledger.body_expiry (message, erase_at) VALUES ($1, $2)", expiring)


async def insert_if_current(pool: Pool, accepted: Sequence[Accepted], *, epoch: int) -> bool:
    """Write messages whose bodies have no time to be erased, in one statement, if the registry has their version.

    Returns:
        Whether they are committed.
    """
    messages = [each.message for each in accepted]
    return await acceptance.insert_if_current(pool, messages, epoch=epoch, violations=_violations(accepted))


def _violations(accepted: Sequence[Accepted]) -> dict[UUID, str]:
    return {each.message.id: _violations_text(each.violations) for each in accepted if each.violations}


def _violations_text(violations: tuple[Violation, ...]) -> str:
    text = msgspec.json.encode(violations).decode()
    # PostgreSQL's jsonb holds no NUL. After an escaped backslash the same characters are five ordinary ones.
    return _ESCAPES.sub(lambda found: "" if found[0] == "\\u0000" else found[0], text) if "\\u0000" in text else text
