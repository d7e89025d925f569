"""One send by a real `Sender`."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.egress import Egress
from services.dispatcher.sender import Report, Sender

BODY = b'{"a":1, "b":[1,2],"e":"\xc3\xa9"}'
HEADERS = {"Content-Type": "application/json", "webhook-id": "msg_1"}
LOOPBACK = AddressPolicy(allowed_networks=(ip_network("127.0.0.0/8"),))


@asynccontextmanager
async def sender(
    policy: AddressPolicy = LOOPBACK, *, egress: Egress | None = None, trust: ssl.SSLContext | None = None
) -> AsyncIterator[Sender]:
    """A dispatcher's HTTP client."""
    async with Sender(policy, egress=egress, trust=trust) as client:
        yield client


async def send(client: Sender, url: str, *, seconds: float = 5.0, body: bytes = BODY) -> Report:
    """POST with a total deadline."""
    return await client.send(url, HEADERS, body, timeout=timedelta(seconds=seconds))


def server_tls(certificate: Path) -> ssl.SSLContext:
    """A server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context
