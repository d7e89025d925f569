"""Operational messages on the wire: the payloads that the reference has, field by field.

Source: Svix, `x-webhooks` of its OpenAPI document. `endpoint.failing` and `endpoint.recovered` are ours, in the manner
of `endpoint.disabled`.
"""

from datetime import datetime

import msgspec

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


class OperationalMessage(msgspec.Struct, kw_only=True, frozen=True):
    """A payload."""

    type: News
    data: EndpointData | DeliveryData


def encoded(news: News, data: EndpointData | DeliveryData) -> bytes:
    """The payload's bytes."""
    return msgspec.json.encode(OperationalMessage(type=news, data=data))


def last_attempt(last: LastAttempt) -> LastAttemptData:
    """The attempt as the API names it."""
    return LastAttemptData(id=encode(Prefix.ATTEMPT, last.id), response_status_code=last.status or 0, timestamp=last.at)
