"""Carrying out attempts whose start is committed: sign, send, have the end recorded."""

import asyncio
import logging
from collections.abc import Coroutine
from functools import lru_cache, partial
from typing import Any, Final

import asyncpg
from msgspec import Struct

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.commands import AbandonAttempt, DeclareUnknown, RecordAnswer
from libs.common.domain.facts import AttemptEnded, Timings
from libs.common.domain.ids import Prefix, encode
from libs.common.domain.outcome import Answer, Failure, Outcome, describe
from libs.common.domain.urls import UrlRefusal, parse_target
from libs.common.postgres.pool import CONNECTION_ERRORS, CONTENT_ERRORS
from libs.common.runtime import clock
from libs.common.runtime.batcher import StoppedError
from libs.common.runtime.expressions.evaluation import TransformationError
from libs.common.runtime.failpoints import Failpoint, reach
from libs.common.runtime.logs import logger
from services.dispatcher.capacity import Capacity
from services.dispatcher.flight import Flight
from services.dispatcher.lease import Lease, LeaseLostError
from services.dispatcher.recorder import Ending, Recorder
from services.dispatcher.sender import TARGETS_KEPT, Report, Sender
from services.dispatcher.signing import NoSigningKeyError, sign
from services.dispatcher.transitions import Transition

_LOG: Final = logger("attempts")
_RECORD_AGAIN_SECONDS: Final = 0.3
UNKNOWN_AFTER_SECONDS: Final = 1.0
"""An attempt that failed here is followed by another at once, and so few of them exhaust its delivery, that what is
wrong here for a moment must not bring about all of them."""


class _Target(Struct, frozen=True, kw_only=True):
    """A URL that may be sent to, normalised; and the parts of it that are recorded in different places."""

    text: str
    shown: str
    query: str | None


class Attempts:
    """The attempts in flight in this process.

    Args:
        sender: the HTTP client.
        recorder: of outcomes.
        lease: without which nothing is sent.
        capacity: given back as attempts end.
        policy: which URLs endpoints may have.
    """

    def __init__(
        self,
        sender: Sender,
        recorder: Recorder,
        lease: Lease,
        capacity: Capacity,
        policy: AddressPolicy,
    ) -> None:
        self._sender = sender
        self._recorder = recorder
        self._lease = lease
        self._capacity = capacity
        self._target = lru_cache(TARGETS_KEPT)(partial(_parse, policy=policy))
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def begin(self, flight: Flight) -> None:
        """Carry out an attempt; its place in the capacity was taken by the caller."""
        self._hold(flight, self._carry_out(flight))

    def disown(self, flight: Flight) -> None:
        """Abandon an attempt whose start may be committed or not, since the answer to its commit was lost.

        It was surely not sent. If its start is not in the ledger, nothing is recorded.
        """
        self._hold(flight, self._carry_out(flight, disowned=True))

    def _hold(self, flight: Flight, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        # Not in the task, which may be cancelled before it begins.
        task.add_done_callback(partial(self._let_go, flight))

    def _let_go(self, flight: Flight, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._capacity.give_back(flight.endpoint.id, flight.endpoint.app, claimed=flight.counted)

    async def drop(self) -> None:
        """Drop everything in flight, because the lease has passed: nothing of it may be recorded."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def drain(self, grace: float) -> None:
        """Begin no more sends; give those under way `grace` seconds to end and be recorded, then drop them."""
        self._stopping = True
        if self._tasks:
            _LOG.info("attempts.draining", in_flight=len(self._tasks))
            await asyncio.wait(list(self._tasks), timeout=grace)
        await self.drop()

    async def _carry_out(self, flight: Flight, *, disowned: bool = False) -> None:
        try:
            await self._settle(flight, disowned=disowned)
        except LeaseLostError:
            _LOG.warning("attempt.lease_lost", **_which(flight))
        except StoppedError:
            _LOG.warning("attempt.unrecorded", **_which(flight))
        except Exception:  # noqa: BLE001  a task's boundary: the attempt stays in flight for as long as this process lives
            _LOG.exception("attempt.left_in_flight", **_which(flight))

    async def _settle(self, flight: Flight, *, disowned: bool) -> None:
        """Bring it to an end that is recorded: where that goes wrong here, nobody knows what came of it."""
        try:
            ending = _abandoned(flight) if disowned or self._stopping else await self._end_of(flight)
            await self._record(ending)
        except (LeaseLostError, StoppedError):
            raise
        except CONTENT_ERRORS as error:
            _LOG.error("attempt.unrecordable", **_which(flight), reason=repr(error))
        except Exception:  # noqa: BLE001  whatever it was, the delivery must go on
            _LOG.exception("attempt.failed_here", **_which(flight))
        else:
            return
        await asyncio.sleep(UNKNOWN_AFTER_SECONDS)
        await self._record(_unknown(flight))

    async def _end_of(self, flight: Flight) -> Ending:
        """Send, unless this process has lost its lease."""
        target = self._target(flight.endpoint.url)
        if isinstance(target, UrlRefusal):
            return _ending(flight, _unsent(Failure.ADDRESS_REFUSED), url=flight.endpoint.url.partition("?")[0])
        try:
            request = sign(flight, clock.now())
        except NoSigningKeyError:
            return _ending(flight, _unsent(Failure.CONFIGURATION), url=target.shown)
        except TransformationError as error:
            _LOG.info("attempt.transformation_failed", **_which(flight), reason=error.fault)
            return _ending(flight, _unsent(Failure.TRANSFORMATION), url=target.shown)
        if not self._lease.held or flight.lease != self._lease.epoch:
            raise LeaseLostError
        with self._capacity.sending(claimed=flight.counted):
            report = await self._sender.send(
                target.text,
                request.headers,
                request.body,
                app=flight.endpoint.app,
                timeout=flight.endpoint.timeout,
            )
        reach(Failpoint.ATTEMPT_SENT)
        return _ending(flight, report, url=target.shown, query=target.query)

    async def _record(self, ending: Ending) -> None:
        """Have the end recorded, however long Postgres is away, for as long as the lease may come back.

        Raises:
            asyncpg.PostgresError: of `CONTENT_ERRORS`: it would spoil one batch after another.
        """
        while True:
            try:
                transition = await self._recorder.batcher.put(ending)
                break
            except CONTENT_ERRORS:
                raise
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as error:
                reason = str(error) or type(error).__name__
                _LOG.warning("attempt.not_recorded_yet", **_which(ending.flight), reason=reason)
                await asyncio.sleep(_RECORD_AGAIN_SECONDS)
        command = ending.command
        if transition is not None and isinstance(command, RecordAnswer):
            _say(ending.flight, command, transition)


def _say(flight: Flight, command: RecordAnswer, transition: Transition) -> None:
    """Log how an attempt ended: a success, which most are and the ledger has, only to who wants all."""
    ended = transition.facts[0]
    succeeded = isinstance(ended, AttemptEnded) and ended.outcome is Outcome.SUCCEEDED
    level = logging.DEBUG if succeeded else logging.INFO
    if _LOG.is_enabled_for(level):
        _LOG.log(
            level,
            "attempt.ended",
            **_which(flight),
            number=flight.started.number,
            answer=describe(command.answer),
            status=transition.after.status,
            due_at=transition.after.due_at,
            total_ms=command.timings.total.total_seconds() * 1000,
        )


def _which(flight: Flight) -> dict[str, str]:
    """What each line about an attempt says: ids as the API has them."""
    return {
        "delivery": encode(Prefix.DELIVERY, flight.delivery),
        "message": encode(Prefix.MESSAGE, flight.message.id),
    }


def _parse(url: str, policy: AddressPolicy) -> _Target | UrlRefusal:
    target = parse_target(url, policy=policy, https_only=False)
    if isinstance(target, UrlRefusal):
        return target
    return _Target(text=target.text, shown=target.without_query, query=target.query)


def _abandoned(flight: Flight) -> Ending:
    return Ending(flight=flight, command=AbandonAttempt(at=clock.now(), attempt=flight.started.attempt))


def _unknown(flight: Flight) -> Ending:
    command = DeclareUnknown(at=clock.now(), attempt=flight.started.attempt, holds=flight.endpoint.retry.holds)
    return Ending(flight=flight, command=command)


def _unsent(failure: Failure) -> Report:
    return Report(answer=Answer(failure=failure), peer=None, sends=0, timings=Timings())


def _ending(flight: Flight, report: Report, *, url: str, query: str | None = None) -> Ending:
    command = RecordAnswer(
        at=clock.now(),
        attempt=flight.started.attempt,
        answer=report.answer,
        policy=flight.endpoint.retry,
        jitter=clock.jitter(),
        url=url,
        peer=report.peer,
        sends=report.sends,
        timings=report.timings,
    )
    return Ending(flight=flight, command=command, response=report.response, url_query=query)
