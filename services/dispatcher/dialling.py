"""Opening connections for the lean sender: to vetted addresses only, timed, and told apart by how they fail."""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Final
from uuid import UUID

from libs.common.domain.addresses import AddressPolicy, refusal
from libs.common.domain.outcome import Failure
from libs.common.runtime import clock
from libs.common.runtime.http_client.connection import Bounds, Connection
from libs.common.runtime.http_client.pool import Origin
from services.dispatcher.resolving import AddressInfo, AddressRefusedError, NameUnresolvedError, Resolver
from services.dispatcher.sender import CONNECT_SECONDS

_TLS_GOODBYE_SECONDS: Final = 1.0


class DialError(Exception):
    """There is no connection, and why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure)
        self.failure = failure


@dataclass(slots=True)
class Opening:
    """How long the parts of opening a connection took; None where a part did not happen or was not reached."""

    dns: timedelta | None = None
    connect: timedelta | None = None
    tls: timedelta | None = None


class Dialler:
    """Connects to receivers: resolves a name once, judges all its addresses, and connects to one of just those.

    Args:
        policy: which addresses endpoints may have.
        trust: with which certificates.
        bounds: of the answers.
        loop: where the connections live.
    """

    def __init__(
        self, policy: AddressPolicy, trust: ssl.SSLContext, bounds: Bounds, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._policy = policy
        self._trust = trust
        self._bounds = bounds
        self._loop = loop
        self._resolver = Resolver(policy)

    async def dial(self, origin: Origin, app: UUID, deadline: float, opening: Opening) -> Connection:
        """A new connection for an application, before `deadline` by the loop's clock; fills in `opening` on the way.

        Raises:
            DialError: see there.
        """
        try:
            async with asyncio.timeout_at(deadline):
                return await self._try_each(origin, await self._addresses(origin, app, opening), opening)
        except AddressRefusedError:
            raise DialError(Failure.ADDRESS_REFUSED) from None
        except TimeoutError as error:
            # A number means that the system gave up, and none that we did.
            raise DialError(Failure.TIMEOUT if error.errno is None else Failure.CONNECT) from error
        except ssl.SSLError as error:
            raise DialError(Failure.TLS) from error
        except OSError as error:
            # A receiver may hang up in the middle of the handshake without saying why.
            shaking_hands = origin.tls and opening.connect is not None
            raise DialError(Failure.TLS if shaking_hands else Failure.CONNECT) from error

    def close(self) -> None:
        """Begin no more lookups."""
        self._resolver.close()

    async def _addresses(self, origin: Origin, app: UUID, opening: Opening) -> list[AddressInfo]:
        literal = _literal(origin)
        if literal is not None:
            return [literal]
        try:
            found = self._resolver.kept(origin.host, origin.port)
            if found is None:
                began = clock.monotonic()
                found = await self._resolver.look_up(origin.host, origin.port, app)
                opening.dns = timedelta(seconds=clock.monotonic() - began)
        except NameUnresolvedError as error:
            raise DialError(Failure.DNS) from error
        except UnicodeError as error:
            raise DialError(Failure.CONFIGURATION) from error
        return found

    async def _try_each(self, origin: Origin, addresses: list[AddressInfo], opening: Opening) -> Connection:
        *others, last = addresses
        for info in others:
            try:
                return await self._connect(origin, info, opening)
            except AddressRefusedError:
                raise
            except OSError:
                opening.connect = opening.tls = None
        return await self._connect(origin, last, opening)

    async def _connect(self, origin: Origin, info: AddressInfo, opening: Opening) -> Connection:
        family, kind, protocol, _, address = info
        # Literal addresses come by no resolver; and what is judged here is exactly what is connected to.
        refused = refusal(ip_address(address[0]), self._policy)
        if refused is not None:
            raise AddressRefusedError(refused.detail)
        began = clock.monotonic()
        async with asyncio.timeout(CONNECT_SECONDS):
            plain = socket.socket(family, kind, protocol)
            try:
                plain.settimeout(0)
                await self._loop.sock_connect(plain, address)
            except BaseException:
                plain.close()
                raise
            connected = clock.monotonic()
            opening.connect = timedelta(seconds=connected - began)
            _, connection = await self._loop.create_connection(
                lambda: Connection(self._bounds, self._loop),
                sock=plain,  # the loop's from now on, whatever becomes of the handshake
                ssl=self._trust if origin.tls else None,
                server_hostname=origin.host if origin.tls else None,
                ssl_shutdown_timeout=_TLS_GOODBYE_SECONDS if origin.tls else None,
            )
        if origin.tls:
            opening.tls = timedelta(seconds=clock.monotonic() - connected)
        return connection


def _literal(origin: Origin) -> AddressInfo | None:
    try:
        address = ip_address(origin.host)
    except ValueError:
        return None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004  the number of IPv4
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), origin.port)
