"""The registry's settings."""

from datetime import timedelta
from typing import Annotated

from msgspec import Meta

from libs.common.domain.health import Limits
from libs.common.runtime.settings import CommonSettings, IdempotencyHours


class RegistrySettings(CommonSettings, kw_only=True, frozen=True):
    """What the registry takes from the environment."""

    port: Annotated[int, Meta(ge=0, le=65535, description="port of the API, health and metrics")] = 8081
    master_key: Annotated[
        str, Meta(description="keys that seal the secrets: base64 of 32 bytes each, by commas, the first one seals")
    ]
    dev: Annotated[bool, Meta(description="development: http, private addresses and plain host names are allowed")] = (
        False
    )
    public_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s/?#]+(/[^\s/?#]+)*)?$",
            description="how users reach the platform, for links in answers; empty: as the request came",
        ),
    ] = ""
    idempotency_hours: IdempotencyHours = 24.0
    allow_networks: Annotated[
        str, Meta(description="networks (CIDR, by commas) that endpoints may live in beside the public ones")
    ] = ""
    endpoint_failing_seconds: Annotated[
        int,
        Meta(ge=0, le=31_536_000, description="failures alone for so long make an endpoint failing; 0: never"),
    ] = 3_600
    endpoint_disabled_seconds: Annotated[
        int,
        Meta(ge=0, le=31_536_000, description="failures alone for so long disable an endpoint; 0: never"),
    ] = 432_000

    @property
    def limits(self) -> Limits:
        """The two of them as the domain has them."""
        failing, disabled = self.endpoint_failing_seconds, self.endpoint_disabled_seconds
        return Limits(
            failing_after=timedelta(seconds=failing) if failing else None,
            disabled_after=timedelta(seconds=disabled) if disabled else None,
        )
