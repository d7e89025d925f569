"""Kept connections, by origin: handed out again while they are young, open and silent."""

import asyncio
import select
from collections.abc import Collection
from typing import Final
from weakref import WeakValueDictionary

from libs.common.runtime import clock
from libs.common.runtime.http_client.connection import Connection

_SWEEP_SECONDS: Final = 5.0


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

    The kernel is asked once in a turn of the loop, for all of them: to ask for each takes half as long as to send.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._kernel = select.epoll()
        self._found: Collection[int] | None = None

    def watch(self, connection: Connection) -> None:
        """Ask for this one, too, until it is closed."""
        self._kernel.register(connection.descriptor, select.EPOLLIN)

    def on(self, connection: Connection) -> bool:
        """Whether something has come on it before the first of them was looked at in this turn."""
        if self._found is None:
            self._found = {descriptor for descriptor, _ in self._kernel.poll(0)}
            self._loop.call_soon(self._forget)
        return connection.descriptor in self._found

    def close(self) -> None:
        self._kernel.close()

    def _forget(self) -> None:
        self._found = None


class Pool:
    """The idle connections of one client.

    Args:
        keep_seconds: how long one may be idle.
        loop: where they live.
    """

    def __init__(self, keep_seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._keep_seconds = keep_seconds
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
            young = clock.monotonic() - connection.idle_since < self._keep_seconds
            if young and not connection.closed and not self._heard.on(connection):
                return connection
            connection.abort()
        return None

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """After an exchange: kept if another one may follow, else closed."""
        if not connection.reusable:
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

    def close(self) -> None:
        """Close what is idle."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for origin in self._idle:
            for connection in origin.idle:
                connection.abort()
            origin.idle.clear()
        self._idle.clear()
        self._heard.close()

    def _sweep(self) -> None:
        """Drop what has been idle for too long, or has ended; a receiver would otherwise cost us descriptors."""
        oldest = clock.monotonic() - self._keep_seconds
        for origin in list(self._idle):
            kept = [one for one in origin.idle if not one.closed and one.idle_since > oldest]
            for one in origin.idle:
                if not one.closed and one.idle_since <= oldest:
                    one.close()
            origin.idle[:] = kept
            if not kept:
                self._idle.discard(origin)
        self._timer = self._loop.call_later(_SWEEP_SECONDS, self._sweep) if self._idle else None
