"""Kept connections, by origin: handed out again while they are young, open and silent."""

import asyncio
import select
from collections.abc import Collection
from typing import Final
from weakref import WeakValueDictionary

from libs.common.runtime import clock
from libs.common.runtime.http_client.connection import Connection

_SWEEP_SECONDS: Final = 5.0
_HEARD_AT_FIRST: Final = 1024
_DROPPED_PART: Final = 4
"""Where too many are idle, one in so many is closed, since to find the oldest takes a look at all."""


class Origin:
    """Where requests go: scheme, host (an IPv6 address without brackets) and port; and what is idle there."""

    __slots__ = ("__weakref__", "host", "idle", "port", "tls")

    def __init__(self, host: str, port: int, *, tls: bool) -> None:
        self.host = host
        self.port = port
        self.tls = tls
        self.idle: list[Connection] = []


class _Heard:
    """On which connections something has come, their end included, that the loop has not read yet.

    The kernel is asked once in a turn of the loop, for all of them: to ask for each takes half as long as to send. Only
    where there is no epoll, each is asked for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._kernel = select.epoll() if hasattr(select, "epoll") else None
        self._most = _HEARD_AT_FIRST
        self._found: Collection[int] | None = None

    def watch(self, connection: Connection) -> None:
        """Ask for this one, too, until it is closed."""
        if self._kernel is not None:
            self._kernel.register(connection.descriptor, select.EPOLLIN)

    def on(self, connection: Connection) -> bool:
        """Whether something has come on it before the first of them was looked at in this turn."""
        if self._kernel is None:
            poll = select.poll()
            poll.register(connection.descriptor, select.POLLIN)
            return bool(poll.poll(0))
        if self._found is None:
            while len(found := self._kernel.poll(0, self._most)) == self._most:
                self._most *= 2  # there may be more
            self._found = {descriptor for descriptor, _ in found}
            self._loop.call_soon(self._forget)
        return connection.descriptor in self._found

    def close(self) -> None:
        """Ask for none any more."""
        if self._kernel is not None:
            self._kernel.close()

    def _forget(self) -> None:
        self._found = None


class Pool:
    """The idle connections of one client.

    Args:
        keep_seconds: how long one may be idle.
        keep_most: so many may be idle; if there are more, those that have been longest are closed.
        loop: where they live.
    """

    def __init__(self, keep_seconds: float, keep_most: int, loop: asyncio.AbstractEventLoop) -> None:
        self._keep_seconds = keep_seconds
        self._keep_most = keep_most
        self._kept = 0
        self._closed = False
        self._loop = loop
        self._heard = _Heard(loop)
        self._origins: WeakValueDictionary[tuple[str, int, bool], Origin] = WeakValueDictionary()
        self._idle: set[Origin] = set()
        self._timer: asyncio.TimerHandle | None = None

    def origin(self, host: str, port: int, *, tls: bool) -> Origin:
        """The one origin of these."""
        key = (host, port, tls)
        found = self._origins.get(key)
        if found is None:
            self._origins[key] = found = Origin(host, port, tls=tls)
        return found

    def take(self, origin: Origin) -> Connection | None:
        """A kept connection on which nothing came unasked, if there is one; the one used last comes first."""
        idle = origin.idle
        while idle:
            connection = idle.pop()
            self._kept -= 1
            young = clock.monotonic() - connection.idle_since < self._keep_seconds
            if young and connection.open and not self._heard.on(connection):
                return connection
            connection.abort()
        return None

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """After an exchange: kept if another one may follow, else closed."""
        if self._closed or not connection.reusable:
            connection.close()
            return
        if not connection.used:
            self._heard.watch(connection)
            connection.used = True
        connection.idle_since = clock.monotonic()
        if not origin.idle:
            self._idle.add(origin)
            if self._timer is None:
                self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        origin.idle.append(connection)
        self._kept += 1
        if self._kept > self._keep_most:
            since = sorted(one.idle_since for each in self._idle for one in each.idle)
            self._drop(since[len(since) // _DROPPED_PART])

    def close(self) -> None:
        """Close what is idle, and what is given back from now on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self._idle:
            for connection in origin.idle:
                connection.abort()
            origin.idle.clear()
        self._idle.clear()
        self._kept = 0
        self._heard.close()

    def _sweep(self) -> None:
        self._drop(clock.monotonic() - self._keep_seconds)
        self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep) if self._idle else None

    def _drop(self, since: float) -> None:
        """Close what is idle since then or longer, and forget what has ended; they would cost us descriptors."""
        for origin in list(self._idle):
            kept = [one for one in origin.idle if not one.closed and one.idle_since > since]
            for one in origin.idle:
                if not one.closed and one.idle_since <= since:
                    one.close()
            self._kept += len(kept) - len(origin.idle)
            origin.idle[:] = kept
            if not kept:
                self._idle.discard(origin)
