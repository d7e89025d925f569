"""Connections to receivers: to vetted addresses only, timed, and used again only while nothing came unasked.

The resolver refuses a host of whose addresses one is not allowed; the socket factory vets once more, since literal
addresses never reach a resolver, and what it vets is exactly what is connected to.
"""

import asyncio
import select
import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from ipaddress import ip_address
from typing import Any, Final
from uuid import UUID

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from libs.common.domain.addresses import AddressPolicy, refusal
from libs.common.domain.facts import Timings
from libs.common.runtime import clock
from services.dispatcher.resolving import AddressRefusedError, NameUnresolvedError, Resolver
from services.dispatcher.sender import KEEPALIVE_SECONDS

VET_SECONDS: Final = 2.0
"""Within which a name must be answered here before a proxy is asked for it."""


class MalformedAnswerError(aiohttp.ClientError):
    """What the receiver says is not HTTP, or not what was asked for."""


@dataclass(slots=True)
class Stopwatch:
    """Moments of one send, in seconds of the monotonic clock, and what it went over; filled in on the way.

    `app` is the application on whose behalf it is. `fresh` asks for a connection that nothing was sent on before.
    `proxied` says that what is connected to is the operator's proxy, wherever it stands; the receiver was judged
    before.
    """

    app: UUID
    fresh: bool = False
    proxied: bool = False
    began: float = field(default_factory=clock.monotonic)
    dns: float | None = None
    resolved: float | None = None
    connecting: float | None = None
    tls_began: float | None = None
    connected: float | None = None
    first_byte: float | None = None
    reused: bool = False
    peer: str | None = None
    protocol: "_Protocol | None" = None

    @property
    def has_connection(self) -> bool:
        """Whether there was something to send on."""
        return self.protocol is not None

    @property
    def was_stale(self) -> bool:
        """Whether a kept connection was used that ended without a single byte of an answer."""
        return self.reused and self.protocol is not None and not self.protocol.heard

    def timings(self) -> Timings:
        """The parts that took place."""
        return Timings(
            dns=_between(self.dns, self.resolved),
            connect=_between(self.connecting, self.tls_began or self.connected),
            tls=_between(self.tls_began, self.connected),
            first_byte=_between(self.began, self.first_byte),
            total=timedelta(seconds=clock.monotonic() - self.began),
        )


STOPWATCH: Final[ContextVar[Stopwatch]] = ContextVar("stopwatch")
"""Of the send that this task is at."""


class VettedConnector(aiohttp.TCPConnector):
    """Opens and keeps connections to addresses that `policy` allows.

    aiohttp itself would take whatever came on an idle connection for the answer to the next request.
    """

    def __init__(self, policy: AddressPolicy, trust: ssl.SSLContext) -> None:
        self._policy = policy
        self._vetted = _VettedResolver(policy)
        super().__init__(
            resolver=self._vetted,
            socket_factory=partial(_open_socket, policy),
            ssl=trust,
            limit=0,
            use_dns_cache=False,
            keepalive_timeout=KEEPALIVE_SECONDS,
            happy_eyeballs_delay=None,
        )
        factory: Any = partial(_Protocol, loop=self._loop)
        self._factory = factory

    async def vet(self, host: str, port: int) -> None:
        """Judge a host that a proxy will connect to, by what it resolves to here.

        A name that has no address here is the proxy's to judge. One that takes longer than `VET_SECONDS`, whatever
        comes of it then, is not: or its own name server would decide whether it is judged.

        Raises:
            AddressRefusedError: endpoints may not have it.
            NameUnresolvedError: it took too long.
        """
        try:
            refused = refusal(ip_address(host), self._policy)
        except ValueError:
            await self._vet_name(host, port)
        else:
            if refused is not None:
                raise AddressRefusedError(refused.detail)

    async def _vet_name(self, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(VET_SECONDS):
                await self._vetted.vet(host, port)
        except NameUnresolvedError as error:
            if error.seconds > VET_SECONDS:
                raise
        except TimeoutError:
            raise NameUnresolvedError("no answer in time", VET_SECONDS) from None

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109  aiohttp's signature
        """A kept connection that is clean, or a new one."""
        stopwatch = STOPWATCH.get()
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert isinstance(protocol, _Protocol)
            if protocol.used and (stopwatch.fresh or _readable(connection)):
                connection.close()
                continue
            if not protocol.used:
                stopwatch.connected = clock.monotonic()
            stopwatch.reused = protocol.used
            stopwatch.protocol = protocol
            stopwatch.peer = _peer(connection)
            return connection

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        assert isinstance(protocol, _Protocol)
        protocol.asked, protocol.used = False, True
        super()._release(key, protocol, should_close=should_close)


class _Protocol(ResponseHandler):
    """A connection that knows whether a request is under way: what comes in between is nobody's answer."""

    asked = False
    heard = False
    used = False

    def set_response_params(self, **params: Any) -> None:
        self.asked, self.heard = True, False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if not self.asked:
            if data:  # without any, aiohttp only resumes what it had paused
                self.abort()
            return
        self.heard = True
        body = self._payload
        super().data_received(data)
        if self.exception() is not None and body is not None and not body.is_eof():
            # aiohttp lets the reader of a body wait for ever when a later piece of it is malformed.
            body.set_exception(MalformedAnswerError())
            self._payload = None


class _TimedContext(ssl.SSLContext):
    """Tells the stopwatch when TLS begins: the loop wraps the connection then."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        stopwatch = STOPWATCH.get(None)
        if stopwatch is not None:
            stopwatch.tls_began = clock.monotonic()
        return super().wrap_bio(*args, **kwargs)


def trusted(ca_file: str = "") -> ssl.SSLContext:
    """The system's certificates, and those in `ca_file`; TLS 1.2 or newer.

    Raises:
        OSError: the file cannot be read, or holds no certificate.
    """
    context = _TimedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file:
        context.load_verify_locations(cafile=ca_file)
    return context


class _VettedResolver(AbstractResolver):
    """What aiohttp asks, in place of a cache of its own."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._resolver = Resolver(policy)

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  the connector leaves it open
    ) -> list[ResolveResult]:
        stopwatch = STOPWATCH.get()
        vetted = not stopwatch.proxied
        found = self._resolver.kept(host, port, vetted=vetted)
        if found is None:
            stopwatch.dns = clock.monotonic()
            found = await self._resolver.look_up(host, port, stopwatch.app, vetted=vetted)
            stopwatch.resolved = clock.monotonic()
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for family, _, protocol, _, address in found
        ]

    async def vet(self, host: str, port: int) -> None:
        """Judge a name.

        Raises:
            NameUnresolvedError: it does not resolve.
            AddressRefusedError: of its addresses one is not allowed.
        """
        if self._resolver.kept(host, port) is None:
            await self._resolver.look_up(host, port, STOPWATCH.get().app)

    async def close(self) -> None:
        self._resolver.close()


def _open_socket(policy: AddressPolicy, info: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, address = info
    stopwatch = STOPWATCH.get()
    refused = None if stopwatch.proxied else refusal(ip_address(address[0]), policy)
    if refused is not None:
        raise AddressRefusedError(refused.detail)
    stopwatch.connecting = clock.monotonic()
    return socket.socket(family, kind, protocol)


def _readable(connection: Connection) -> bool:
    """Whether something has come on an idle connection, its end included, that the loop has not seen yet."""
    transport = connection.transport
    descriptor = transport.get_extra_info("socket") if transport is not None else None
    if descriptor is None:
        return True
    poll = select.poll()
    poll.register(descriptor.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _peer(connection: Connection) -> str | None:
    name = connection.transport.get_extra_info("peername") if connection.transport is not None else None
    if name is None:
        return None
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _between(start: float | None, end: float | None) -> timedelta | None:
    return None if start is None or end is None else timedelta(seconds=end - start)
