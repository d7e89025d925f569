"""Event types out of an OpenAPI document: names, descriptions, and schemas that stand on their own."""

import json
from typing import Any

import pytest

from libs.common.runtime.schemas.payload import PayloadSchema
from services.registry.openapi_webhooks import BadDocumentError, Webhook, webhooks


def body(schema: Any) -> dict[str, Any]:
    return {"requestBody": {"content": {"application/json": {"schema": schema}}}}


def document(items: Any, schemas: Any = None, version: str = "3.1.0") -> dict[str, Any]:
    return {"openapi": version, "webhooks": items, "components": {"schemas": schemas or {}}}


def only(described: dict[str, Any]) -> Webhook:
    [webhook] = webhooks(described)
    return webhook


def test_a_webhook_is_an_event_type() -> None:
    operation = {"description": "was paid", "deprecated": True, "tags": ["orders"]} | body({"type": "object"})
    webhook = only(document({"order.paid": {"post": operation}}))
    assert (webhook.name, webhook.description, webhook.deprecated) == ("order.paid", "was paid", True)
    assert (webhook.group, webhook.schema, webhook.path) == ("orders", {"type": "object"}, ("webhooks", "order.paid"))


def test_the_older_section_is_read_too_and_the_summary_stands_in_for_a_description() -> None:
    webhook = only({"x-webhooks": {"order.paid": {"post": {"summary": "paid"}}}})
    assert (webhook.name, webhook.description, webhook.schema) == ("order.paid", "paid", None)


def test_a_key_that_is_no_name_of_an_event_type_gives_way_to_the_operation_id() -> None:
    assert only(document({"Order paid": {"post": {"operationId": "order.paid"}}})).name == "order.paid"


def test_a_schema_carries_along_what_it_refers_to() -> None:
    schemas = {
        "Order": {"type": "object", "properties": {"lines": {"items": {"$ref": "#/components/schemas/Line"}}}},
        "Line": {"required": ["sku"], "properties": {"part": {"$ref": "#/components/schemas/Line"}}},
        "Unused": {"type": "string"},
    }
    schema = only(document({"paid": {"post": body({"$ref": "#/components/schemas/Order"})}}, schemas)).schema
    assert schema is not None
    assert set(schema["$defs"]) == {"Order", "Line"}
    checked = PayloadSchema(schema)
    assert not checked.violations(json.dumps({"lines": [{"sku": "a", "part": {"sku": "b"}}]}).encode())
    [violation] = checked.violations(json.dumps({"lines": [{"sku": "a", "part": {}}]}).encode())
    assert violation.path == ("lines", 0, "part")


def test_the_request_body_itself_may_be_a_reference() -> None:
    described = document({"paid": {"post": {"requestBody": {"$ref": "#/components/requestBodies/Paid"}}}})
    described["components"]["requestBodies"] = {
        "Paid": {"content": {"application/json": {"schema": {"type": "object"}}}}
    }
    assert only(described).schema == {"type": "object"}


def test_the_dialect_of_version_3_0_becomes_json_schema() -> None:
    schema = {
        "properties": {
            "name": {"type": "string", "nullable": True, "enum": ["a"]},
            "price": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
        }
    }
    webhook = only(document({"paid": {"post": body(schema)}}, version="3.0.3"))
    assert webhook.schema == {
        "properties": {
            "name": {"type": ["string", "null"], "enum": ["a", None]},
            "price": {"type": "number", "exclusiveMinimum": 0},
        }
    }


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        ([], "is an object"),
        ({"openapi": "3.1.0", "paths": {}}, "no webhooks"),
        (document({"paid": {}}), "has an operation"),
        (document({"paid": 5}), "a reference"),
        (document({"a b": {"post": {}}}), "neither its key"),
        (document({"paid": {"post": body({"$ref": "#/components/schemas/None"})}}), "leads to nothing"),
        (document({"paid": {"$ref": "http://127.0.0.1/x"}}), "own parts only"),
        (document({"paid": {"$ref": "#/webhooks/paid"}}), "a reference"),
        ({"webhooks": {"a": {"post": {}}}, "x-webhooks": {"a": {"post": {}}}}, "comes twice"),
    ],
)
def test_a_document_that_cannot_be_read_says_where_and_why(described: Any, reason: str) -> None:
    with pytest.raises(BadDocumentError, match=reason):
        list(webhooks(described))
