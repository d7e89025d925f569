"""Operational messages on the wire: the payloads that the reference has, field by field.

Source: Svix, `x-webhooks` of its OpenAPI document. `endpoint.failing` and `endpoint.recovered` are ours, in the manner
of `endpoint.disabled`.
"""

from datetime import UTC, datetime
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from libs.common.domain.ids import Prefix, encode
from libs.common.domain.operational import LastAttempt, News


class EndpointData(msgspec.Struct, rename="camel", kw_only=True, frozen=True, omit_defaults=True):
    """Which endpoint it is about. `fail_since` is the first of its failures in a row."""

    app_id: str
    app_uid: str | None = None
    endpoint_id: str
    endpoint_uid: str | None = None
    fail_since: datetime | None = None


class LastAttemptData(msgspec.Struct, rename="camel", kw_only=True, frozen=True):
    """The attempt that it is about. `response_status_code` is 0 where no answer came."""

    id: str
    response_status_code: int
    timestamp: datetime


class DeliveryData(msgspec.Struct, rename="camel", kw_only=True, frozen=True, omit_defaults=True):
    """Which message, to which endpoint."""

    app_id: str
    app_uid: str | None = None
    msg_id: str
    msg_event_id: str | None = None
    endpoint_id: str
    last_attempt: LastAttemptData


_SINCE: Final = datetime(2026, 8, 21, 10, tzinfo=UTC)
_ENDPOINT: Final = EndpointData(
    app_id="app_01kNcU3kq0pD7oZ9p1yq4a",
    app_uid="customer-17",
    endpoint_id="ep_01kNcU3kq0pD7oZ9p1yq4b",
    endpoint_uid="orders",
)
_DELIVERY: Final = DeliveryData(
    app_id=_ENDPOINT.app_id,
    app_uid=_ENDPOINT.app_uid,
    msg_id="msg_01kNcU3kq0pD7oZ9p1yq4c",
    msg_event_id="order-1041-completed",
    endpoint_id=_ENDPOINT.endpoint_id,
    last_attempt=LastAttemptData(id="atmpt_01kNcU3kq0pD7oZ9p1yq4d", response_status_code=503, timestamp=_SINCE),
)


class OperationalMessage(msgspec.Struct, kw_only=True, frozen=True):
    """A payload."""

    type: News
    data: EndpointData | DeliveryData


def encoded(news: News, data: EndpointData | DeliveryData) -> bytes:
    """The payload's bytes."""
    return msgspec.json.encode(OperationalMessage(type=news, data=data))


def example(news: News) -> bytes:
    """A payload with everything that may be in one of its kind."""
    match news:
        case News.ENDPOINT_CREATED | News.ENDPOINT_UPDATED | News.ENDPOINT_DELETED:
            return encoded(news, _ENDPOINT)
        case News.ENDPOINT_DISABLED | News.ENDPOINT_FAILING | News.ENDPOINT_RECOVERED:
            return encoded(news, replace(_ENDPOINT, fail_since=_SINCE))
        case News.EXHAUSTED | News.FAILING:
            return encoded(news, _DELIVERY)
        case News.RECOVERED:
            return encoded(
                news, replace(_DELIVERY, last_attempt=replace(_DELIVERY.last_attempt, response_status_code=200))
            )
        case _:
            assert_never(news)


def last_attempt(last: LastAttempt) -> LastAttemptData:
    """The attempt as the API names it."""
    return LastAttemptData(id=encode(Prefix.ATTEMPT, last.id), response_status_code=last.status or 0, timestamp=last.at)
