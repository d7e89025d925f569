"""The operations of the reference document, each with its parameters beside the path, and which test shows which."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import pytest

_PAGE: Final = ("limit", "iterator")
_ORDERED: Final = (*_PAGE, "order")
_MESSAGES: Final = (*_PAGE, "channel", "before", "after", "with_content", "event_types")
_ATTEMPTS: Final = (*_MESSAGES, "status", "status_code_class")
_POST: Final = ("idempotency-key",)

OPERATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "v1.application.list": _ORDERED,
        "v1.application.create": (*_POST, "get_if_exists"),
        "v1.application.delete": (),
        "v1.application.get": (),
        "patch_application": (),
        "v1.application.update": (),
        "v1.message-attempt.list-by-endpoint": _ATTEMPTS,
        "v1.message-attempt.list-by-msg": (*_ATTEMPTS, "endpoint_id"),
        "v1.endpoint.list": _ORDERED,
        "v1.endpoint.create": _POST,
        "v1.endpoint.delete": (),
        "v1.endpoint.get": (),
        "patch_endpoint": (),
        "v1.endpoint.update": (),
        "v1.endpoint.get-headers": (),
        "v1.endpoint.patch-headers": (),
        "v1.endpoint.update-headers": (),
        "v1.message-attempt.list-attempted-messages": (*_MESSAGES, "status"),
        "v1.endpoint.recover": _POST,
        "v1.endpoint.get-secret": (),
        "v1.endpoint.rotate-secret": _POST,
        "v1.endpoint.send-example": _POST,
        "v1.endpoint.get-stats": ("since", "until"),
        "v1.message.list": _MESSAGES,
        "v1.message.create": (*_POST, "with_content"),
        "v1.message.get": ("with_content",),
        "v1.message-attempt.get": (),
        "v1.message-attempt.expunge-content": (),
        "v1.message.expunge-content": (),
        "v1.message-attempt.list-attempted-destinations": _PAGE,
        "v1.message-attempt.resend": _POST,
        "v1.authentication.app-portal-access": _POST,
        "logout_api_v1_auth_logout__post": _POST,
        "v1.event-type.list": (*_ORDERED, "include_archived", "with_content"),
        "v1.event-type.create": _POST,
        "v1.event-type.delete": ("expunge",),
        "v1.event-type.get": (),
        "patch_event_type": (),
        "v1.event-type.update": (),
        "v1.health.get": (),
        # The document has no name for this one.
        "get /api/v1/health/ping": (),
        # Newer than the document: the SDK has them, and so has Hookledger.
        "v1.authentication.expire-all": _POST,
        "v1.background-task.get": (),
        "v1.endpoint.replay-missing": _POST,
        "v1.endpoint.transformation-get": (),
        "v1.endpoint.patch-transformation": (),
        "v1.event-type.import-openapi": _POST,
    }
)
"""By operation id."""


def operation(identity: str, *parameters: str) -> pytest.MarkDecorator:
    """Marks a test as one that shows an operation, and these of its parameters."""
    unknown = set(parameters) - set(OPERATIONS[identity])
    assert not unknown, f"{identity} has no {unknown}"
    return pytest.mark.operation(identity, *parameters)
