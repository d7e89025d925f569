"""The dispatcher's settings."""

from datetime import timedelta
from typing import Annotated

from msgspec import Meta

from libs.common.domain.breaker import BreakerPolicy
from libs.common.runtime.settings import CommonSettings
from services.dispatcher.sender import SenderName


class DispatcherSettings(CommonSettings, kw_only=True, frozen=True):
    """What the dispatcher takes from the environment."""

    port: Annotated[int, Meta(ge=0, le=65535, description="port of health and metrics")] = 8082
    master_key: Annotated[
        str, Meta(description="keys that open the secrets: base64 of 32 bytes each, by commas, the first one seals")
    ]
    dev: Annotated[bool, Meta(description="development: http, private addresses and plain host names are allowed")] = (
        False
    )
    allow_networks: Annotated[
        str, Meta(description="networks (CIDR, by commas) that endpoints may live in beside the public ones")
    ] = ""
    egress_proxy: Annotated[
        str, Meta(description="HTTP proxy through which receivers are reached, as http://user:password@host:port")
    ] = ""
    egress_proxy_except: Annotated[
        str, Meta(description="hosts, suffixes (.corp.example) and networks, by commas, that are reached without it")
    ] = ""
    ca_file: Annotated[
        str, Meta(description="file of further certificates (PEM) that receivers' certificates may be issued by")
    ] = ""
    sender: Annotated[
        SenderName, Meta(description="HTTP client that delivers; through a proxy it is always aiohttp's")
    ] = "lean"
    max_concurrency: Annotated[int, Meta(ge=1, le=10_000, description="attempts under way at the same time")] = 2048
    breaker_failures: Annotated[
        int,
        Meta(ge=0, le=1_000, description="failures in a row after which an endpoint's circuit breaker opens; 0: never"),
    ] = 10
    breaker_after_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="for how long these failures must have gone on")
    ] = 3_000
    breaker_wait_ms: Annotated[
        int, Meta(ge=100, le=3_600_000, description="wait before the first probe; it doubles from one to the next")
    ] = 10_000
    breaker_longest_wait_ms: Annotated[
        int, Meta(ge=100, le=3_600_000, description="longest wait between two probes")
    ] = 300_000

    @property
    def breaker(self) -> BreakerPolicy | None:
        """When breakers open, and for how long; None: there are none."""
        if not self.breaker_failures:
            return None
        return BreakerPolicy(
            failures=self.breaker_failures,
            after=timedelta(milliseconds=self.breaker_after_ms),
            wait=timedelta(milliseconds=self.breaker_wait_ms),
            longest_wait=timedelta(milliseconds=self.breaker_longest_wait_ms),
        )
