"""Event types over HTTP: what the reference has, what newer versions add, and schemas that are judged."""

from typing import Any

import pytest
from svix.api import SvixAsync
from svix.exceptions import HttpError
from svix.models.event_type_import_open_api_in import EventTypeImportOpenApiIn
from svix.models.event_type_in import EventTypeIn

from tests.support.client import Client

YAML = """
openapi: 3.1.0
webhooks:
  invoice.paid:
    post:
      summary: An invoice was paid.
      tags: [invoices]
      requestBody:
        content:
          application/json:
            schema: {$ref: '#/components/schemas/Invoice'}
  invoice.sent:
    post: {description: An invoice was sent.}
components:
  schemas:
    Invoice: {type: object, required: [id]}
"""


async def refusal(api: Client, method: str, path: str, body: Any) -> tuple[int, Any]:
    answer = await api.request(method, f"/api/v1{path}", json=body)
    return answer.status, answer.json["detail"]


async def test_one_flag_in_the_older_field_is_a_list_of_one(api: Client) -> None:
    made = await api.post("/event-type", {"name": "user.old", "description": "", "featureFlag": "beta"})
    assert (made["featureFlags"], made["featureFlag"]) == (["beta"], "beta")
    patched = await api.patch("/event-type/user.old", {"description": "x"})
    assert patched["featureFlags"] == ["beta"]


async def test_an_example_of_an_operational_message_needs_no_event_type(api: Client) -> None:
    app = await api.create_application()
    made = await api.post(f"/app/{app}/endpoint", {"url": "https://a.example"})
    path = f"/app/{app}/endpoint/{made['id']}/send-example"
    sent = await api.post(path, {"eventType": "endpoint.disabled"})
    assert (sent["eventType"], sent["payload"]["type"]) == ("endpoint.disabled", "endpoint.disabled")
    assert "failSince" in sent["payload"]["data"]
    assert (await refusal(api, "POST", path, {"eventType": "endpoint.moved"}))[0] == 404


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "strnig"}, ["type"]),
        ({"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}}, ["properties", "a", "$ref"]),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ["$schema"]),
        ([], []),
        (True, []),
    ],
)
async def test_what_is_no_schema_is_refused_with_its_path(api: Client, schema: Any, path: list[str]) -> None:
    body = {"name": "bad.schema", "description": "", "schemas": {"1": {}, "2": schema}}
    status, [error] = await refusal(api, "POST", "/event-type", body)
    assert (status, error["loc"]) == (422, ["body", "schemas", "2", *path])
    assert (await api.request("GET", "/api/v1/event-type/bad.schema")).status == 404


async def test_an_import_creates_changes_and_brings_back_but_leaves_alone_what_is_the_same(svix: SvixAsync) -> None:
    await svix.event_type.create(EventTypeIn(name="invoice.sent", description="old", feature_flags=["beta"]))
    await svix.event_type.delete("invoice.sent")
    tried = await svix.event_type.import_openapi(EventTypeImportOpenApiIn(spec_raw=YAML, dry_run=True))
    assert tried.data.modified == []
    assert [item.name for item in tried.data.to_modify or []] == ["invoice.paid", "invoice.sent"]
    with pytest.raises(HttpError):
        await svix.event_type.get("invoice.paid")

    done = await svix.event_type.import_openapi(EventTypeImportOpenApiIn(spec_raw=YAML))
    assert done.data.modified == ["invoice.paid", "invoice.sent"]
    paid = await svix.event_type.get("invoice.paid")
    sent = await svix.event_type.get("invoice.sent")
    assert (paid.description, paid.group_name) == ("An invoice was paid.", "invoices")
    assert paid.schemas == {
        "1": {"$ref": "#/$defs/Invoice", "$defs": {"Invoice": {"type": "object", "required": ["id"]}}}
    }
    assert (sent.archived, sent.description, sent.feature_flags) == (False, "An invoice was sent.", ["beta"])
    again = await svix.event_type.import_openapi(EventTypeImportOpenApiIn(spec_raw=YAML))
    assert again.data.modified == []


async def test_an_import_may_archive_what_the_document_does_not_have(api: Client) -> None:
    await api.post("/event-type", {"name": "left.over", "description": ""})
    spec = {"openapi": "3.1.0", "webhooks": {"kept": {"post": {"summary": "kept"}}}}
    await api.post("/event-type/import/openapi", {"spec": spec, "replaceAll": True})
    assert (await api.get("/event-type/left.over"))["archived"]
    assert [item["name"] for item in (await api.get("/event-type"))["data"]] == ["kept"]


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ({}, 400, None),
        ({"spec": {"webhooks": {}}, "specRaw": "{}"}, 400, None),
        ({"specRaw": "a: [1"}, 422, ["body", "specRaw"]),
        ({"specRaw": "{"}, 422, ["body", "specRaw"]),
        ({"spec": {"paths": {}}}, 422, ["body", "spec"]),
        (
            {"spec": {"webhooks": {"a": {"post": {"requestBody": {"content": {"application/json": {"schema": {"type": 5}}}}}}}}},
            422,
            ["body", "spec", "webhooks", "a", "1", "type"],
        ),
    ],
)  # fmt: skip
async def test_a_document_that_cannot_be_imported_says_what_to_mend(
    api: Client, body: Any, status: int, place: list[str] | None
) -> None:
    answered, detail = await refusal(api, "POST", "/event-type/import/openapi", body)
    assert answered == status
    assert place is None or detail[0]["loc"] == place
