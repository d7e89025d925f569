"""The lean sender: a request in one write, an answer in one future, no task and no timer of its own.

What it tells apart, bounds and repeats is what `AiohttpSender` does; both pass the same tests.
"""

import asyncio
import resource
import ssl
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import lru_cache
from typing import Final, Self
from uuid import UUID

from msgspec import Struct
from yarl import URL

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.egress import Egress
from libs.common.domain.facts import Timings
from libs.common.domain.outcome import RETRY_AFTER_STATUSES, Answer, Failure, parse_retry_after
from libs.common.runtime import clock
from libs.common.runtime.http_client import heads
from libs.common.runtime.http_client.connection import (
    Bounds,
    Connection,
    ConnectionEndedError,
    MalformedAnswerError,
)
from libs.common.runtime.http_client.deadlines import Deadlines
from libs.common.runtime.http_client.pool import Origin, Pool
from services.dispatcher.aiohttp_sender import AiohttpSender
from services.dispatcher.connections import trusted
from services.dispatcher.dialling import DialError, Dialler, Opening
from services.dispatcher.sender import (
    KEEPALIVE_SECONDS,
    KEPT_BYTES,
    MOST_READ_BYTES,
    TARGETS_KEPT,
    USER_AGENT,
    Report,
    Sender,
)

_BOUNDS: Final = Bounds(read_bytes=MOST_READ_BYTES, kept_bytes=KEPT_BYTES)
_DEFAULTS: Final = (("User-Agent", USER_AGENT), ("Accept", "*/*"))
_KEPT: Final = Opening()
"""Of a connection that was there already: nothing took place."""


class _Target(Struct, frozen=True, kw_only=True):
    """What never changes about the requests to one URL."""

    origin: Origin
    first_lines: str
    proxied: bool


class LeanSender(Sender):
    """Sends by `libs.common.runtime.http_client`; through a proxy by aiohttp.

    Args:
        policy: which addresses endpoints may have.
        egress: whether receivers are reached through a proxy.
        trust: with which certificates; by default the system's.
    """

    def __init__(
        self, policy: AddressPolicy, *, egress: Egress | None = None, trust: ssl.SSLContext | None = None
    ) -> None:
        self._policy = policy
        self._egress = egress or Egress()
        self._trust = trust or trusted()

    async def __aenter__(self) -> Self:
        self._loop = loop = asyncio.get_running_loop()
        self._pool = Pool(KEEPALIVE_SECONDS, _most_idle(), loop)
        self._deadlines = Deadlines(loop)
        self._dialler = Dialler(self._policy, self._trust, _BOUNDS, loop)
        self._target = lru_cache(TARGETS_KEPT)(self._parse)
        self._stack = AsyncExitStack()
        if self._egress.proxy is not None:
            self._by_proxy = await self._stack.enter_async_context(
                AiohttpSender(self._policy, egress=self._egress, trust=self._trust)
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._pool.close()
        self._deadlines.close()
        self._dialler.close()
        await self._stack.aclose()

    async def send(self, url: str, headers: dict[str, str], body: bytes, *, app: UUID, timeout: timedelta) -> Report:  # noqa: ASYNC109  it is the endpoint's setting
        """See `Sender`."""
        began, deadline = clock.monotonic(), self._loop.time() + timeout.total_seconds()
        try:
            target = self._target(url)
            if target.proxied:
                return await self._by_proxy.send(url, headers, body, app=app, timeout=timeout)
            request = heads.request(target.first_lines, headers, body, _DEFAULTS)
        except ValueError:
            return _failed(Failure.CONFIGURATION, began, sends=0)
        connection, opening, sends = self._pool.take(target.origin), _KEPT, 1
        while True:
            if connection is None:
                opening = Opening()
                try:
                    connection = await self._dialler.dial(target.origin, app, deadline, opening)
                except DialError as error:
                    return _failed(error.failure, began, sends=sends - 1, opening=opening)
            answer = connection.ask(request)
            self._deadlines.watch(answer, deadline)
            try:
                await answer
            except ConnectionEndedError:
                if not connection.used or connection.heard_at is not None:
                    return _failed(Failure.RESET, began, sends=sends, opening=opening, connection=connection)
                # The receiver closed a kept connection just as we used it: say it once more, on a new one.
                connection, began, sends = None, clock.monotonic(), 2
            except TimeoutError:
                connection.abort()
                return _failed(Failure.TIMEOUT, began, sends=sends, opening=opening, connection=connection)
            except MalformedAnswerError:
                return _failed(Failure.PROTOCOL, began, sends=sends, opening=opening, connection=connection)
            except BaseException:
                connection.abort()
                if answer.done() and not answer.cancelled():
                    answer.exception()  # it came in the same moment, and nobody is left to be told
                raise
            else:
                report = _answered(connection, began, sends, opening)
                self._pool.give_back(target.origin, connection)
                return report
            finally:
                self._deadlines.forget(answer)

    def _parse(self, url: str) -> _Target:
        """Raises ValueError."""
        parts = URL(url, encoded=True)
        host, port = parts.raw_host, parts.port  # as it is written: decoded, it could become another name
        if not host or not port or parts.scheme not in {"http", "https"}:
            raise ValueError("not an absolute HTTP URL")
        return _Target(
            origin=self._pool.origin(host, port, tls=parts.scheme == "https"),
            first_lines=heads.request_line("POST", parts.raw_path_qs, parts.host_port_subcomponent or ""),
            proxied=self._egress.proxied(host),
        )


def _most_idle() -> int:
    """How many connections may be kept: half of what may be open leaves enough to those that are in use."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if descriptors == resource.RLIM_INFINITY else descriptors // 2


def _answered(connection: Connection, began: float, sends: int, opening: Opening) -> Report:
    status = connection.status
    retry_after = None
    if status in RETRY_AFTER_STATUSES:
        said = next((value for name, value in connection.fields if name.lower() == b"retry-after"), None)
        if said is not None:
            retry_after = parse_retry_after(said.decode("latin-1"), status=status, now=clock.now())
    return Report(
        answer=Answer(status=status, retry_after=retry_after),
        peer=connection.peer,
        sends=sends,
        timings=_timings(began, opening, connection.heard_at),
        response=bytes(connection.body),
    )


def _failed(
    failure: Failure, began: float, *, sends: int, opening: Opening = _KEPT, connection: Connection | None = None
) -> Report:
    return Report(
        answer=Answer(failure=failure),
        peer=None if connection is None else connection.peer,
        sends=sends,
        timings=_timings(began, opening, None if connection is None else connection.heard_at),
    )


def _timings(began: float, opening: Opening, heard_at: float | None) -> Timings:
    return Timings(
        dns=opening.dns,
        connect=opening.connect,
        tls=opening.tls,
        # Seconds by position, which are taken in a third less time than by name.
        first_byte=None if heard_at is None else timedelta(0, heard_at - began),
        total=timedelta(0, clock.monotonic() - began),
    )
