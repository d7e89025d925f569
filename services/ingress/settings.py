"""The ingress's settings."""

from typing import Annotated

from msgspec import Meta

from libs.common.runtime.settings import CommonSettings, IdempotencyHours


class IngressSettings(CommonSettings, kw_only=True, frozen=True):
    """What the ingress takes from the environment."""

    port: Annotated[int, Meta(ge=0, le=65535, description="port of the front door")] = 8080
    master_key: Annotated[
        str, Meta(description="keys that open the secrets: base64 of 32 bytes each, by commas, the first one seals")
    ]
    registry_url: Annotated[
        str, Meta(pattern=r"^https?://", description="where the registry listens, for what the front door forwards")
    ] = "http://127.0.0.1:8081"
    idempotency_hours: IdempotencyHours = 24.0
    key_messages_per_second: Annotated[
        float, Meta(ge=0, le=1_000_000, description="messages that one API key may publish each second; 0 for any")
    ] = 0.0
    app_messages_per_second: Annotated[
        float,
        Meta(
            ge=0,
            le=1_000_000,
            description="messages accepted over HTTP for each application that has no acceptRate; 0 for any",
        ),
    ] = 0.0
    request_timeout_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=300_000,
            description="how long a request's headers, and then its body, may take to come in, and a long answer may "
            "stand still",
        ),
    ] = 10_000
    front_door_timeout_ms: Annotated[
        int, Meta(ge=100, le=300_000, description="how long the registry may take to answer a forwarded request")
    ] = 30_000
