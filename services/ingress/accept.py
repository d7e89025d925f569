"""Accepting: everything that comes in waits here for the next transaction, and is answered after its commit.

One batch is one transaction: the registry's version, read after the last of its messages arrived; the keys; then
message, body, fact and outbox row in one statement. A batch without keys is that statement alone, which writes nothing
if the registry has another version than its messages were judged by. What waits is bounded in number, bytes and time,
so that a database that takes less than comes in makes answers of 503, not a heap and long waits.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

import asyncpg
from msgspec.structs import replace

from libs.common.domain.facts import Origin
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.message import Message
from libs.common.postgres.pool import CONNECTION_ERRORS, CONTENT_ERRORS, RETRYABLE_ERRORS, Pool, transaction
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.batcher import Batcher, OverdueError, StoppedError
from libs.common.runtime.clock import monotonic, now
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from services.ingress import admission, claims, insertion, metrics
from services.ingress.candidate import (
    FAULTLESS,
    Acceptance,
    Accepted,
    Candidate,
    Claim,
    Duplicate,
    Finding,
    Forbidden,
    Violating,
)
from services.ingress.schemas import Schemas

_LOG: Final = logger("accept")
MAX_BATCH_MESSAGES: Final = 256
ENOUGH_MESSAGES: Final = 64
"""Senders who await their answers would all be answered by one commit, and then do nothing until the next one: so what
waits is divided, and while the one half is committed the other half is read."""
MAX_BATCH_BYTES: Final = 2 * 1024 * 1024
MAX_WAITING_MESSAGES: Final = 4096
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024
PATIENCE_SECONDS: Final = 5.0
"""How long a candidate waits for its transaction to begin; with the transaction's own time, the longest wait."""
WRITERS: Final = 2
LINGER_SECONDS: Final = 0.010
_TRIES: Final = 5
_FURTHER_MESSAGE_BYTES: Final = MAX_BATCH_BYTES // MAX_BATCH_MESSAGES
"""What each further message of a group weighs at least, so that full groups do not share a transaction."""

_CONTENT_FAULTS: Final = (*CONTENT_ERRORS, asyncpg.ProgramLimitExceededError, UnicodeError)
_DATABASE_ERRORS: Final = (*CONNECTION_ERRORS, asyncpg.PostgresError)
_FAILURES: Final = (StoppedError, OverdueError, *_CONTENT_FAULTS, *_DATABASE_ERRORS)


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
        self._waiting = 0
        self._waiting_bytes = 0
        metrics.WAITING_BYTES.set_function(lambda: self._waiting_bytes)
        self.batcher: Batcher[Sequence[Candidate], list[Acceptance]] = Batcher(
            self._write,
            is_content_fault=lambda error: isinstance(error, _CONTENT_FAULTS),
            max_items=MAX_BATCH_MESSAGES,
            enough=ENOUGH_MESSAGES,
            max_weight=MAX_BATCH_BYTES,
            weight=_weight,
            writers=WRITERS,
            patience=PATIENCE_SECONDS,
            linger=LINGER_SECONDS,
        )

    async def accept(self, candidate: Candidate) -> Acceptance:
        """What became of `candidate`; what this returns is committed.

        Raises:
            UnavailableError: Postgres does not answer, or too much waits for it already.
            UnstorableError: Postgres does not take this message.
        """
        return (await self.accept_together((candidate,)))[0]

    async def accept_together(self, group: Sequence[Candidate]) -> list[Acceptance]:
        """What became of each of a group, which is committed in one transaction.

        Raises:
            UnavailableError: as in `accept`.
            UnstorableError: Postgres does not take one of them, and so none.
        """
        size = self._make_room(group)
        try:
            acceptances = await self.batcher.submit(await self._checked(group))
        except _FAILURES as error:
            raise self._failure(group, error) from error
        finally:
            self._make_way(group, size)
        return await self._prefer_first_answers(group, acceptances)

    def put(self, candidate: Candidate) -> "asyncio.Future[list[Acceptance]]":
        """Have a judged candidate written, for a caller that does not await: once the future is done, see `outcome`.

        Raises:
            UnavailableError: too much waits for Postgres already.
        """
        group = (candidate,)
        size = self._make_room(group)
        try:
            return self.batcher.put(group)
        except StoppedError as error:
            self._make_way(group, size)
            raise self._failure(group, error) from error

    def outcome(self, candidate: Candidate, future: "asyncio.Future[list[Acceptance]]") -> Acceptance:
        """What became of a candidate that was `put`; what this returns is committed.

        Raises:
            UnavailableError: as in `accept`.
            UnstorableError: as in `accept`.
            asyncio.CancelledError: the service ended before.
        """
        self._waiting -= 1
        self._waiting_bytes -= len(candidate.body)
        try:
            return future.result()[0]
        except _FAILURES as error:
            raise self._failure((candidate,), error) from error

    def _make_room(self, group: Sequence[Candidate]) -> int:
        """Count what waits, and its bytes, which this returns.

        Raises:
            UnavailableError: it would be too much.
        """
        size = _bytes(group)
        # A group that is larger than all that may wait is taken when nothing else does.
        if self._waiting and (
            self._waiting + len(group) > MAX_WAITING_MESSAGES or self._waiting_bytes + size > MAX_WAITING_BYTES
        ):
            metrics.TURNED_AWAY.inc(len(group))
            raise UnavailableError("too much waits to be committed")
        self._waiting += len(group)
        self._waiting_bytes += size
        return size

    def _make_way(self, group: Sequence[Candidate], size: int) -> None:
        self._waiting -= len(group)
        self._waiting_bytes -= size

    @staticmethod
    def _failure(group: Sequence[Candidate], error: Exception) -> UnavailableError | UnstorableError:
        """What a failure to write means for who sent the group."""
        match error:
            case StoppedError():
                return UnavailableError("this replica is stopping")
            case OverdueError():
                metrics.TURNED_AWAY.inc(len(group))
                return UnavailableError("the database takes less than comes in")
            case asyncpg.CheckViolationError():
                # No partition takes messages of this week: nothing that the sender could mend.
                return UnavailableError(str(error))
            case _ if isinstance(error, _CONTENT_FAULTS):
                _LOG.warning("accept.unstorable", app=encode(Prefix.APPLICATION, group[0].app), reason=str(error))
                return UnstorableError("this message cannot be stored")
            case _:
                return UnavailableError(str(error) or type(error).__name__)

    def judge(self, candidate: Candidate) -> Candidate:
        """The candidate, with how its payload violates the schema of its event type, as the registry is known now."""
        finding = self.check(candidate)
        return candidate if finding is FAULTLESS else replace(candidate, finding=finding)

    def check(self, candidate: Candidate) -> Finding:
        """How its payload violates the schema of its event type, as the registry is known now."""
        return self._schemas.check(candidate)

    async def _checked(self, group: Sequence[Candidate]) -> list[Candidate]:
        """The group, with what the schemas find in each."""
        checked: list[Candidate] = []
        for candidate in group:
            checked.append(self.judge(candidate))
            if len(group) > 1:
                await asyncio.sleep(0)  # a batch keeps everything else waiting for one check at most
        return checked

    async def _prefer_first_answers(
        self, group: Sequence[Candidate], acceptances: list[Acceptance]
    ) -> list[Acceptance]:
        """A key is judged before the content: under one that was used, the first answer is given again."""
        if not any(isinstance(acceptance, Violating) for acceptance in acceptances):
            return acceptances
        keyed = [
            (place, claim)
            for place, (candidate, acceptance) in enumerate(zip(group, acceptances, strict=True))
            if isinstance(acceptance, Violating)
            for claim in candidate.claims
        ]
        held = await self.holders([claim for _, claim in keyed])
        for (place, _), first in zip(keyed, held, strict=True):
            if first is not None and isinstance(acceptances[place], Violating):
                acceptances[place] = first
        return acceptances

    async def holders(self, wanted: Sequence[Claim]) -> list[Duplicate | None]:
        """For each of these claims the message that has its key already.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        if not wanted:
            return []
        try:
            return await claims.look_up(self._pool, wanted, lifetime=self._lifetime)
        except _DATABASE_ERRORS as error:
            raise UnavailableError(str(error) or type(error).__name__) from error

    async def _write(self, groups: Sequence[Sequence[Candidate]]) -> list[list[Acceptance]]:
        candidates = list(itertools.chain.from_iterable(groups))
        began = monotonic()
        for left in reversed(range(_TRIES)):
            try:
                acceptances = await self._write_at_once(candidates) or await self._write_at_length(candidates)
                break
            except RETRYABLE_ERRORS as error:
                _LOG.info("accept.retried", reason=type(error).__name__, messages=len(candidates))
                if not left:
                    raise
        reach(Failpoint.ACCEPT_COMMITTED)
        took = monotonic() - began
        self._committed([each.message for each in acceptances if isinstance(each, Accepted)])
        metrics.COMMIT_SECONDS.observe(took)
        metrics.BATCH_MESSAGES.observe(len(candidates))
        _count(candidates, acceptances)
        each = iter(acceptances)
        return [list(itertools.islice(each, len(group))) for group in groups]

    async def _write_at_once(self, candidates: Sequence[Candidate]) -> list[Acceptance] | None:
        """Accept in one statement what has neither a key nor anything beside it to write, if the registry is as known.

        None where that cannot be, and then nothing is written.
        """
        if any(candidate.claims or candidate.admission or candidate.keep_body for candidate in candidates):
            return None
        acceptances = self._judged(candidates, self._snapshot.version, now())
        accepted = [each for each in acceptances if isinstance(each, Accepted)]
        if len(accepted) < len(candidates):
            return None  # what is refused is refused by a registry that is surely current
        reach(Failpoint.ACCEPT_IN_TRANSACTION)
        return acceptances if await insertion.insert_if_current(self._pool, accepted, epoch=self._epoch) else None

    async def _write_at_length(self, candidates: Sequence[Candidate]) -> list[Acceptance]:
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow("SELECT version, clock_timestamp() AS at FROM hookledger.registry_version")
            assert row is not None, "the migration has made it"
            version, at = row["version"], row["at"]
            await self._snapshot.catch_up(version)
            acceptances = self._judged(candidates, version, at)
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
            accepted = [each for each in acceptances if isinstance(each, Accepted)]
            if accepted:
                await insertion.insert(connection, accepted, epoch=self._epoch)
            await admission.record(connection, candidates, acceptances)
            reach(Failpoint.ACCEPT_IN_TRANSACTION)
        return acceptances

    def _judged(self, candidates: Sequence[Candidate], version: int, at: datetime) -> list[Acceptance]:
        """The messages to be, or why not: what an older registry was asked about is asked again."""
        judged: list[Acceptance] = []
        born_ms = int(at.timestamp() * 1000)
        for candidate in candidates:
            error, finding = None, candidate.finding
            if candidate.registry_version < version:
                error, finding = candidate.authorise(), self.check(candidate)
            if error is not None:
                judged.append(Forbidden(error=error))
            elif finding.enforced:
                judged.append(Violating(violations=finding.violations))
            else:
                message = insertion.message_of(candidate, version, at, born_ms)
                judged.append(Accepted(message=message, violations=finding.violations))
        return judged


def _bytes(group: Sequence[Candidate]) -> int:
    return len(group[0].body) if len(group) == 1 else sum(len(candidate.body) for candidate in group)


def _weight(group: Sequence[Candidate]) -> int:
    return _bytes(group) + (len(group) - 1) * _FURTHER_MESSAGE_BYTES


def _count(candidates: Sequence[Candidate], acceptances: Sequence[Acceptance]) -> None:
    """Count what became of a batch."""
    accepted: dict[Origin, int] = {}
    for candidate, acceptance in zip(candidates, acceptances, strict=True):
        match acceptance:
            case Accepted():
                accepted[candidate.origin] = accepted.get(candidate.origin, 0) + 1
            case Duplicate(kind=kind):
                metrics.DUPLICATES.labels(str(kind)).inc()
            case Forbidden() | Violating():
                pass
    for origin, count in accepted.items():
        metrics.ACCEPTED.labels(str(origin)).inc(count)
