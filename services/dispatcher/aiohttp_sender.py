"""The sender on aiohttp's client: the reference, and the way through a proxy."""

import asyncio
import ssl
from datetime import timedelta
from typing import Final, Self
from uuid import UUID

import aiohttp
from yarl import URL

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.egress import Egress
from libs.common.domain.outcome import Answer, Failure, parse_retry_after
from libs.common.runtime import clock
from services.dispatcher.connections import (
    STOPWATCH,
    MalformedAnswerError,
    Stopwatch,
    VettedConnector,
    trusted,
)
from services.dispatcher.resolving import AddressRefusedError, NameUnresolvedError
from services.dispatcher.sender import CONNECT_SECONDS, KEPT_BYTES, MOST_READ_BYTES, USER_AGENT, Report, Sender

_SWITCHING_PROTOCOLS: Final = 101


class AiohttpSender(Sender):
    """Sends by aiohttp's client.

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
        said = self._egress.credentials
        self._proxy_headers = {"Proxy-Authorization": aiohttp.encode_basic_auth(*said)} if said is not None else {}

    async def __aenter__(self) -> Self:
        self._connector = VettedConnector(self._policy, self._trust)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            headers={"User-Agent": USER_AGENT},
            skip_auto_headers=("Accept-Encoding", "Content-Type"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, url: str, headers: dict[str, str], body: bytes, *, app: UUID, timeout: timedelta) -> Report:  # noqa: ASYNC109  it is the endpoint's setting
        """See `Sender`."""
        sends = 1
        stopwatch = Stopwatch(app)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                try:
                    return await self._once(url, headers, body, stopwatch, sends)
                except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError):
                    # The receiver closed a kept connection just as we used it: say it once more, on a new one.
                    if not stopwatch.was_stale:
                        raise
                sends, stopwatch = 2, Stopwatch(app, fresh=True)
                return await self._once(url, headers, body, stopwatch, sends)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return Report(
                answer=Answer(failure=_failure(error, stopwatch)),
                peer=stopwatch.peer,
                sends=sends if stopwatch.has_connection else sends - 1,
                timings=stopwatch.timings(),
            )

    async def _once(self, url: str, headers: dict[str, str], body: bytes, stopwatch: Stopwatch, sends: int) -> Report:
        token = STOPWATCH.set(stopwatch)
        target = URL(url, encoded=True)
        host = target.raw_host or ""  # as it is written, and as the proxy is told
        stopwatch.proxied = self._egress.proxied(host)
        try:
            if stopwatch.proxied:
                await self._connector.vet(host, target.port or 0)
            async with self._session.post(
                target,
                data=body,
                # Without a tunnel the proxy reads the request itself, and takes off what is for it.
                headers=headers | self._proxy_headers if stopwatch.proxied and target.scheme == "http" else headers,
                allow_redirects=False,
                proxy=self._egress.proxy if stopwatch.proxied else None,
                proxy_headers=self._proxy_headers if stopwatch.proxied else None,
            ) as response:
                stopwatch.first_byte = clock.monotonic()
                if response.status == _SWITCHING_PROTOCOLS:
                    raise MalformedAnswerError
                kept = await _read(response)
                retry_after = parse_retry_after(
                    response.headers.get("Retry-After"), status=response.status, now=clock.now()
                )
                return Report(
                    answer=Answer(status=response.status, retry_after=retry_after),
                    peer=stopwatch.peer,
                    sends=sends,
                    timings=stopwatch.timings(),
                    response=kept,
                )
        finally:
            STOPWATCH.reset(token)


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


def _failure(error: BaseException, stopwatch: Stopwatch) -> Failure:
    """Which failure an exception of the client is."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None and len(causes) < 8:  # noqa: PLR2004  chains are short
        causes.append(cause)
    if any(isinstance(cause, AddressRefusedError) for cause in causes):
        return Failure.ADDRESS_REFUSED
    match error:
        case TimeoutError():
            return Failure.TIMEOUT
        case aiohttp.ClientConnectorDNSError() | NameUnresolvedError():
            return Failure.DNS
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return Failure.TLS
        case aiohttp.ClientConnectorError():
            # A receiver may hang up in the middle of the handshake without saying why.
            return Failure.CONNECT if stopwatch.tls_began is None else Failure.TLS
        case aiohttp.ClientHttpProxyError():
            return Failure.CONNECT  # the proxy's word, not the receiver's
        case MalformedAnswerError() | aiohttp.ClientResponseError():
            # aiohttp makes up a status 400 for an answer that is not HTTP; it is not the receiver's word.
            return Failure.PROTOCOL
        case aiohttp.ClientConnectionError() | aiohttp.ClientPayloadError() | OSError():
            return Failure.RESET
        case aiohttp.InvalidURL() | ValueError():
            return Failure.CONFIGURATION
        case _:
            return Failure.PROTOCOL
