"""Sending one signed POST: vetted addresses, bounded in time and size, never redirected.

One session for all endpoints, so that connections are used again. The resolver refuses a host of whose addresses one is
not allowed; the socket factory vets once more, since literal addresses never reach a resolver, and what it vets is
exactly what is connected to.
"""

import asyncio
import socket
import ssl
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from libs.common.domain.addresses import AddressPolicy, refusal, vet_all
from libs.common.domain.facts import Timings
from libs.common.domain.outcome import Answer, Failure, parse_retry_after
from libs.common.runtime import clock

CONNECT_SECONDS: Final = 5.0
MOST_READ_BYTES: Final = 64 * 1024
KEPT_BYTES: Final = 16 * 1024
KEEPALIVE_SECONDS: Final = 30.0
USER_AGENT: Final = "Hookledger/0.1"


class AddressRefusedError(OSError):
    """An address that endpoints may not have."""


@dataclass(slots=True)
class _Stopwatch:
    """Moments of one send, in seconds of the monotonic clock; the trace callbacks fill them in."""

    began: float = field(default_factory=clock.monotonic)
    dns: float | None = None
    resolved: float | None = None
    connecting: float | None = None
    tls_began: float | None = None
    connected: float | None = None
    first_byte: float | None = None
    reused: bool = False

    @property
    def has_connection(self) -> bool:
        """Whether there was something to send on."""
        return self.reused or self.connected is not None

    def timings(self) -> Timings:
        """The parts that took place."""
        connect_from = self.resolved or self.connecting
        return Timings(
            dns=_between(self.dns, self.resolved),
            connect=_between(connect_from, self.tls_began or self.connected),
            tls=_between(self.tls_began, self.connected),
            first_byte=_between(self.began, self.first_byte),
            total=timedelta(seconds=clock.monotonic() - self.began),
        )


_STOPWATCH: ContextVar[_Stopwatch | None] = ContextVar("stopwatch", default=None)


class _TimedContext(ssl.SSLContext):
    """Tells the stopwatch when TLS begins: the loop wraps the connection then."""

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        stopwatch = _STOPWATCH.get()
        if stopwatch is not None:
            stopwatch.tls_began = clock.monotonic()
        return super().wrap_bio(*args, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of a send: the answer, and what the ledger records beside it."""

    answer: Answer
    peer: str | None
    sends: int
    timings: Timings
    response: bytes = b""


class _VettedResolver(AbstractResolver):
    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self._resolver.resolve(host, port, family)
        refused = vet_all([ip_address(result["host"]) for result in found], self._policy)
        if refused is not None:
            raise AddressRefusedError(refused.detail)
        return found

    async def close(self) -> None:
        await self._resolver.close()


class Sender:
    """The one HTTP client of a dispatcher. Used as an async context manager.

    Args:
        policy: which addresses endpoints may have.
    """

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy

    async def __aenter__(self) -> Self:
        context = _TimedContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        connector = aiohttp.TCPConnector(
            resolver=_VettedResolver(self._policy),
            socket_factory=self._open_socket,
            ssl=context,
            limit=0,
            ttl_dns_cache=10,
            keepalive_timeout=KEEPALIVE_SECONDS,
            happy_eyeballs_delay=None,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            headers={"User-Agent": USER_AGENT},
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
            trace_configs=[_traces()],
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, url: str, headers: dict[str, str], body: bytes, *, timeout: timedelta) -> Report:  # noqa: ASYNC109  it is the endpoint's setting
        """POST `body` and read a bounded answer; every way in which that can end is a report.

        Args:
            url: normalised and judged as text; resolved addresses are judged here.
            headers: signature and content type among them.
            body: exact bytes.
            timeout: for all of it.
        """
        sends = 0
        stopwatch = _Stopwatch()
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                while True:
                    sends += 1
                    stopwatch = _Stopwatch()
                    token = _STOPWATCH.set(stopwatch)
                    try:
                        return await self._once(url, headers, body, stopwatch, sends)
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                        # The receiver closed a kept connection just as we used it: say it once more, on a new one.
                        stale = stopwatch.reused and not isinstance(error, aiohttp.ClientConnectorError)
                        if sends > 1 or not stale:
                            raise
                    finally:
                        _STOPWATCH.reset(token)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Report(
                answer=Answer(failure=_failure(error)),
                peer=None,
                sends=sends if stopwatch.has_connection else sends - 1,
                timings=stopwatch.timings(),
            )

    async def _once(self, url: str, headers: dict[str, str], body: bytes, stopwatch: _Stopwatch, sends: int) -> Report:
        async with self._session.post(
            URL(url, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,
            trace_request_ctx=stopwatch,
        ) as response:
            stopwatch.first_byte = clock.monotonic()
            peer = _peer(response)
            kept = await _read(response)
            retry_after = parse_retry_after(
                response.headers.get("Retry-After"), status=response.status, now=clock.now()
            )
            return Report(
                answer=Answer(status=response.status, retry_after=retry_after),
                peer=peer,
                sends=sends,
                timings=stopwatch.timings(),
                response=kept,
            )

    def _open_socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        refused = refusal(ip_address(address[0]), self._policy)
        if refused is not None:
            raise AddressRefusedError(refused.detail)
        return socket.socket(family, kind, protocol)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the answer; past the bound the connection is closed, not drained."""
    kept = bytearray()
    read = 0
    while chunk := await response.content.readany():
        read += len(chunk)
        if len(kept) < KEPT_BYTES:
            kept += chunk[: KEPT_BYTES - len(kept)]
        if read > MOST_READ_BYTES:
            response.close()
            break
    return bytes(kept)


def _peer(response: aiohttp.ClientResponse) -> str | None:
    connection = response.connection
    name = connection.transport.get_extra_info("peername") if connection and connection.transport else None
    if name is None:
        return None
    host, port = name[0], name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _failure(error: BaseException) -> Failure:
    """Which failure an exception of the client is."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and len(causes) < 8:  # noqa: PLR2004  chains are short
        causes.append(cause)
    if any(isinstance(cause, AddressRefusedError) for cause in causes):
        return Failure.ADDRESS_REFUSED
    match error:
        case TimeoutError():
            return Failure.TIMEOUT
        case aiohttp.ClientConnectorDNSError():
            return Failure.DNS
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Failure.TLS
        case aiohttp.ClientConnectorError():
            return Failure.CONNECT
        case aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            # aiohttp makes up a status 400 for an answer that is not HTTP; it is not the receiver's word.
            return Failure.PROTOCOL
        case aiohttp.ClientConnectionError() | OSError():
            return Failure.RESET
        case aiohttp.InvalidURL() | ValueError():
            return Failure.CONFIGURATION
        case _:
            return Failure.PROTOCOL


def _traces() -> aiohttp.TraceConfig:
    def stopwatch(context: SimpleNamespace) -> _Stopwatch:
        watch: _Stopwatch = context.trace_request_ctx
        return watch

    async def dns_start(_: object, context: SimpleNamespace, __: object) -> None:
        stopwatch(context).dns = clock.monotonic()

    async def dns_end(_: object, context: SimpleNamespace, __: object) -> None:
        stopwatch(context).resolved = clock.monotonic()

    async def connect_start(_: object, context: SimpleNamespace, __: object) -> None:
        stopwatch(context).connecting = clock.monotonic()

    async def connect_end(_: object, context: SimpleNamespace, __: object) -> None:
        stopwatch(context).connected = clock.monotonic()

    async def reused(_: object, context: SimpleNamespace, __: object) -> None:
        stopwatch(context).reused = True

    config = aiohttp.TraceConfig()
    config.on_dns_resolvehost_start.append(dns_start)
    config.on_dns_resolvehost_end.append(dns_end)
    config.on_connection_create_start.append(connect_start)
    config.on_connection_create_end.append(connect_end)
    config.on_connection_reuseconn.append(reused)
    return config


def _between(start: float | None, end: float | None) -> timedelta | None:
    return None if start is None or end is None else timedelta(seconds=end - start)
