"""One send by a real sender: each of them, in turn, is what the tests of senders are run with (`sender` in conftest)."""

import ssl
from datetime import timedelta
from ipaddress import ip_network
from typing import Final
from uuid import UUID

from libs.common.domain.addresses import AddressPolicy
from libs.common.domain.egress import Egress
from services.dispatcher.aiohttp_sender import AiohttpSender
from services.dispatcher.connections import trusted
from services.dispatcher.lean_sender import LeanSender
from services.dispatcher.sender import Report, Sender, SenderName
from services.dispatcher.senders import SENDERS

BODY = b'{"a":1, "b":[1,2],"e":"\xc3\xa9"}'
HEADERS = {"Content-Type": "application/json", "webhook-id": "msg_1"}
FIVE_SECONDS = timedelta(seconds=5)
APP: Final = UUID(int=1)
TRUST = trusted()
"""As senders have it by default; to read all certificates anew for each takes longer than what it is tried with."""

LOOPBACK = AddressPolicy(allowed_networks=(ip_network("127.0.0.0/8"),))


class SenderOf:
    """A dispatcher's HTTP client, of the kind that a test is run with."""

    def __init__(self, name: SenderName) -> None:
        self.name = name

    def __call__(
        self, policy: AddressPolicy = LOOPBACK, *, egress: Egress | None = None, trust: ssl.SSLContext | None = None
    ) -> LeanSender | AiohttpSender:
        return SENDERS[self.name](policy, egress=egress, trust=trust or TRUST)


async def send(client: Sender, url: str, *, seconds: float = 5.0, body: bytes = BODY, app: UUID = APP) -> Report:
    """POST with a total deadline."""
    return await client.send(url, HEADERS, body, app=app, timeout=timedelta(seconds=seconds))
