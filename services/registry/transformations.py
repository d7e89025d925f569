"""Transformations of endpoints: an expression over the payload whose result is sent in its place."""

from typing import Annotated, Any, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import replace

from libs.common.contracts.operations import Time
from libs.common.contracts.registry import EndpointDocument, TransformationDocument
from libs.common.postgres.registry import Changes
from libs.common.runtime.expressions.evaluation import TransformationError, transform
from libs.common.runtime.http import invalid
from services.registry.answers import NO_CONTENT, Answer, ok
from services.registry.calls import Call
from services.registry.endpoints import change, endpoint
from services.registry.fields import Expression, In, Out, checked_expression, given


class EndpointTransformationPatch(In, frozen=True):
    """What is to change. `code` is what the reference has in this place, and refused."""

    expression: Expression | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    code: Annotated[str | UnsetType | None, Meta(extra_json_schema={"type": "null"})] = UNSET


class EndpointTransformationOut(Out):
    """A transformation as the API shows it."""

    expression: str | None
    enabled: bool
    updated_at: Time


class TransformationPreviewIn(In, frozen=True):
    """An expression to try (without one the endpoint's own), and a payload to try it on."""

    payload: msgspec.Raw
    expression: Expression | None = None


class TransformationPreviewOut(Out):
    """What would be sent."""

    payload: Any


async def get(call: Call) -> Answer:
    """Get the transformation of an endpoint."""
    found = await endpoint(call)
    said = cast("EndpointDocument", found.document).transformation
    return ok(
        EndpointTransformationOut(
            expression=said.expression if said else None,
            enabled=said.enabled if said else False,
            updated_at=found.updated_at,
        )
    )


async def patch(call: Call, changes: Changes) -> Answer:
    """Change the transformation of an endpoint; an expression of null removes it."""
    body = call.content(EndpointTransformationPatch)
    if isinstance(body.code, str):
        raise invalid(["body", "code"], "code is not run here: give an `expression` in jmespath")
    found = await endpoint(call)
    document = cast("EndpointDocument", found.document)
    old = document.transformation
    expression = checked_expression(given(body.expression, old.expression if old else None), "expression")
    if expression is None and body.enabled is True:
        raise invalid(["body", "expression"], "there is no expression that could be enabled")
    new = None
    if expression is not None:
        new = TransformationDocument(expression=expression, enabled=given(body.enabled, old.enabled if old else True))
    await change(changes, found, replace(document, transformation=new), uid=found.uid)
    return NO_CONTENT


async def preview(call: Call, _changes: Changes) -> Answer:
    """Show what a transformation makes of a payload. Nothing is changed or sent."""
    body = call.content(TransformationPreviewIn)
    own = cast("EndpointDocument", (await endpoint(call)).document).transformation
    expression = checked_expression(body.expression, "expression") or (own.expression if own else None)
    if expression is None:
        raise invalid(["body", "expression"], "the endpoint has none: give one to try")
    try:
        made = transform(expression, bytes(body.payload))
    except TransformationError as error:
        raise invalid(["body", "payload"], str(error), "value_error.transformation") from None
    return ok(TransformationPreviewOut(payload=msgspec.Raw(made)))
