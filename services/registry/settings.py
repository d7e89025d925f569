"""The registry's settings."""

from typing import Annotated

from msgspec import Meta

from libs.common.runtime.settings import CommonSettings


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
    allow_networks: Annotated[
        str, Meta(description="networks (CIDR, by commas) that endpoints may live in beside the public ones")
    ] = ""
