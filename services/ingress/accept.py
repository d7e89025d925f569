"""Accepting: everything that comes in waits here for the next transaction, and is answered after its commit.

One batch is one transaction: the registry's version, read after the last of its messages arrived; the keys; then
message, body, fact and outbox row in one statement.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import asyncpg
import msgspec

from libs.common.contracts import ledger
from libs.common.domain import ids
from libs.common.domain.facts import MessageAccepted
from libs.common.domain.message import Message
from libs.common.postgres.pool import (
    CONNECTION_ERRORS,
    CONTENT_ERRORS,
    RETRYABLE_ERRORS,
    Connection,
    Pool,
    transaction,
)
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.batcher import Batcher, StoppedError
from libs.common.runtime.clock import monotonic, random_bytes
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from libs.common.runtime.schemas.payload import Violation
from services.ingress import claims, metrics
from services.ingress.candidate import (
    FAULTLESS,
    Acceptance,
    Accepted,
    Candidate,
    Claim,
    Duplicate,
    Forbidden,
    Violating,
)
from services.ingress.schemas import Schemas

_LOG: Final = logger("accept")
MAX_BATCH_MESSAGES: Final = 256
MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
WRITERS: Final = 2
_TRIES: Final = 5
_SALT_BYTES: Final = 16

_CONTENT_FAULTS: Final = (*CONTENT_ERRORS, asyncpg.ProgramLimitExceededError, UnicodeError)
_DATABASE_ERRORS: Final = (*CONNECTION_ERRORS, asyncpg.PostgresError)


class UnavailableError(Exception):
    """Nothing can be committed now, or whether it was is not known. The sender is to come again."""


class UnstorableError(Exception):
    """This one message cannot be stored, whatever is tried."""


class Acceptor:
    """Accepts candidates, many in one transaction.

    Args:
        pool: of the role `ingress`.
        snapshot: the registry, which is caught up when a batch finds it newer.
        epoch: the ledger's.
        lifetime: how long a key is remembered.
        committed: is told of each batch's messages after the commit; must not block.
    """

    def __init__(
        self,
        pool: Pool,
        snapshot: RegistrySnapshot,
        *,
        epoch: int,
        lifetime: timedelta,
        committed: Callable[[Sequence[Message]], None],
    ) -> None:
        self._pool = pool
        self._snapshot = snapshot
        self._epoch = epoch
        self._lifetime = lifetime
        self._committed = committed
        self._schemas = Schemas(snapshot)
        self._waiting_bytes = 0
        self.batcher: Batcher[Candidate, Acceptance] = Batcher(
            self._write,
            is_content_fault=lambda error: isinstance(error, _CONTENT_FAULTS),
            max_items=MAX_BATCH_MESSAGES,
            max_weight=MAX_BATCH_BYTES,
            weight=lambda candidate: len(candidate.body),
            writers=WRITERS,
        )

    async def accept(self, candidate: Candidate) -> Acceptance:
        """What became of `candidate`; what this returns is committed.

        Raises:
            UnavailableError: Postgres does not answer, or too much waits for it already.
            UnstorableError: Postgres does not take this message.
        """
        finding = self._schemas.check(candidate)
        if finding is not FAULTLESS:
            candidate = replace(candidate, finding=finding)
        size = len(candidate.body)
        if self._waiting_bytes + size > MAX_WAITING_BYTES:
            raise UnavailableError("too much waits to be committed")
        self._waiting_bytes += size
        metrics.WAITING_BYTES.set(self._waiting_bytes)
        try:
            acceptance = await self.batcher.submit(candidate)
        except StoppedError as error:
            raise UnavailableError("this replica is stopping") from error
        except asyncpg.CheckViolationError as error:
            # No partition takes messages of this week: nothing that the sender could mend.
            raise UnavailableError(str(error)) from error
        except _CONTENT_FAULTS as error:
            _LOG.warning("accept.unstorable", app=str(candidate.app), reason=str(error))
            raise UnstorableError("this message cannot be stored") from error
        except _DATABASE_ERRORS as error:
            raise UnavailableError(str(error) or type(error).__name__) from error
        finally:
            self._waiting_bytes -= size
            metrics.WAITING_BYTES.set(self._waiting_bytes)
        _count(candidate, acceptance)
        if isinstance(acceptance, Violating):
            # A key is judged before the content: under one that was used, the first answer is given again.
            first = [await self.holder(claim) for claim in candidate.claims]
            return next(filter(None, first), acceptance)
        return acceptance

    async def holder(self, claim: Claim) -> Duplicate | None:
        """The message that has the key of `claim` already.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        try:
            return await claims.look_up(self._pool, claim, lifetime=self._lifetime)
        except _DATABASE_ERRORS as error:
            raise UnavailableError(str(error) or type(error).__name__) from error

    async def _write(self, candidates: Sequence[Candidate]) -> list[Acceptance]:
        began = monotonic()
        for left in reversed(range(_TRIES)):
            try:
                acceptances = await self._write_once(candidates)
                break
            except RETRYABLE_ERRORS as error:
                _LOG.info("accept.retried", reason=type(error).__name__, messages=len(candidates))
                if not left:
                    raise
        reach(Failpoint.ACCEPT_COMMITTED)
        metrics.COMMIT_SECONDS.observe(monotonic() - began)
        metrics.BATCH_MESSAGES.observe(len(candidates))
        self._committed([each.message for each in acceptances if isinstance(each, Accepted)])
        return acceptances

    async def _write_once(self, candidates: Sequence[Candidate]) -> list[Acceptance]:
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow("SELECT version, clock_timestamp() AS at FROM hookledger.registry_version")
            assert row is not None, "the migration has made it"
            version, at = row["version"], row["at"]
            acceptances = await self._judge(candidates, version, at)
            settled = await claims.settle(
                connection,
                [
                    claims.Contender(message=each.message.id, claims=candidate.claims)
                    for candidate, each in zip(candidates, acceptances, strict=True)
                    if isinstance(each, Accepted)
                ],
                at=at,
                lifetime=self._lifetime,
            )
            verdicts = iter(settled)
            acceptances = [(next(verdicts) or each) if isinstance(each, Accepted) else each for each in acceptances]
            accepted = [each.message for each in acceptances if isinstance(each, Accepted)]
            if accepted:
                violations = [each.violations for each in acceptances if isinstance(each, Accepted)]
                await _insert(connection, accepted, violations, epoch=self._epoch)
            reach(Failpoint.ACCEPT_IN_TRANSACTION)
        return acceptances

    async def _judge(self, candidates: Sequence[Candidate], version: int, at: datetime) -> list[Acceptance]:
        """The messages to be, or why not: what an older registry was asked about is asked again."""
        await self._snapshot.catch_up(version)
        judged: list[Acceptance] = []
        for candidate in candidates:
            error = candidate.authorise() if candidate.registry_version < version else None
            finding = self._schemas.check(candidate) if candidate.registry_version < version else candidate.finding
            if error is not None:
                judged.append(Forbidden(error=error))
            elif finding.enforced:
                judged.append(Violating(violations=finding.violations))
            else:
                judged.append(Accepted(message=_message(candidate, version, at), violations=finding.violations))
        return judged


def _message(candidate: Candidate, version: int, at: datetime) -> Message:
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
        publish=candidate.publish,
    )


async def _insert(
    connection: Connection, messages: Sequence[Message], violations: Sequence[tuple[Violation, ...]], *, epoch: int
) -> None:
    salts = [random_bytes(_SALT_BYTES) for _ in messages]
    facts = [ledger.encode(_fact(message)) for message in messages]
    first = messages[0]  # version and time are the batch's
    await connection.execute(
        """
        WITH message AS (
            INSERT INTO hookledger.message (id, org, app, event_type, channels, event_id, origin, source, content_type,
                body_hash, body_bytes, publish, registry_version, accepted_at, schema_violations)
            SELECT u.id, u.org, u.app, u.event_type, string_to_array(u.channels, ','), u.event_id, u.origin, u.source,
                u.content_type, u.body_hash, u.body_bytes, u.publish, $18, $19,
                u.schema_violations::jsonb
            FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::uuid[],
                $9::text[], $10::bytea[], $11::int[], $12::bool[],
                $21::text[])
                AS u (id, org, app, event_type, channels, event_id, origin, source, content_type, body_hash, body_bytes,
                    publish, schema_violations)
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
        [_violations_text(each) for each in violations],
    )


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


def _count(candidate: Candidate, acceptance: Acceptance) -> None:
    match acceptance:
        case Accepted():
            metrics.ACCEPTED.labels(str(candidate.origin)).inc()
        case Duplicate(kind=kind):
            metrics.DUPLICATES.labels(str(kind)).inc()
        case Forbidden() | Violating():
            pass
