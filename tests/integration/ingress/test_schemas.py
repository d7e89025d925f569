"""Payloads against their schemas, on every way in: refused, warned of, or not looked at, as the organisation says."""

import json
from typing import Any

import msgspec
import pytest
from aio_pika.abc import AbstractChannel

from deploy.stack.services import Service
from libs.common.contracts.registry import EventTypeDocument, Kind, OrganisationDocument, SchemaValidation
from libs.common.postgres.registry import OPERATOR, changing
from libs.common.postgres.snapshot import object_of
from tests.integration.ingress.stand import Stand, Tenant, cloud_event, next_dead, publish, standard_signed
from tests.support.client import Answer, Client

SCHEMA = {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}, "n": {"type": "integer"}}}
NO_MORE = SCHEMA | {"additionalProperties": False}
BAD: dict[str, Any] = {"n": "secret"}


async def event_type(stand: Stand, tenant: Tenant, name: str, *schemas: Any, **fields: Any) -> None:
    versions = {str(number): msgspec.Raw(json.dumps(schema).encode()) for number, schema in enumerate(schemas, 1)}
    await stand.create(Kind.EVENT_TYPE, EventTypeDocument(schemas=versions, **fields), org=tenant.org, uid=name)


async def validate(stand: Stand, tenant: Tenant, asked: SchemaValidation) -> None:
    """Change the organisation's setting; nobody is told."""
    async with stand.writer.acquire() as connection, changing(connection, OPERATOR) as changes:
        row = await connection.fetchrow("SELECT * FROM hookledger.registry_object WHERE id = $1", tenant.org)
        assert row is not None
        old = object_of(row)
        assert isinstance(old.document, OrganisationDocument)
        document = msgspec.structs.replace(old.document, schema_validation=asked)
        await changes.update(old, document, uid=old.uid)


async def create(client: Client, tenant: Tenant, name: str, payload: Any, **headers: str) -> Answer:
    message = {"eventType": name, "payload": payload}
    return await client.request("POST", tenant.path, json=message, headers=headers)


async def recorded(stand: Stand, name: str) -> Any:
    text = await stand.observer.fetchval("SELECT schema_violations FROM hookledger.message WHERE event_type = $1", name)
    return None if text is None else json.loads(text)


async def test_off_looks_at_nothing(client: Client, stand: Stand, tenant: Tenant) -> None:
    await event_type(stand, tenant, "off.type", SCHEMA)
    assert (await create(client, tenant, "off.type", BAD)).status == 202
    assert await recorded(stand, "off.type") is None


async def test_enforced_violations_are_a_422_with_their_paths_at_once(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    await event_type(stand, tenant, "strict.type", SCHEMA)
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    answer = await create(client, tenant, "strict.type", BAD)
    assert answer.status == 422
    assert answer.json == {
        "code": "validation",
        "detail": [
            {"loc": ["body", "payload"], "msg": '"id" is a required property', "type": "value_error.schema"},
            {
                "loc": ["body", "payload", "n"],
                "msg": 'the value is not of type "integer"',
                "type": "value_error.schema",
            },
        ],
    }
    assert (await create(client, tenant, "strict.type", {"id": "x"})).status == 202
    assert (await create(client, tenant, "type.without.schema", BAD)).status == 202


async def test_the_newest_version_counts_and_an_archived_type_is_not_checked(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    await event_type(stand, tenant, "versions", *[{"required": [f"v{number}"]} for number in range(1, 11)])
    await event_type(stand, tenant, "old", SCHEMA, archived=True)
    assert (await create(client, tenant, "versions", {"v9": 1})).status == 422
    assert (await create(client, tenant, "versions", {"v10": 1})).status == 202
    assert (await create(client, tenant, "old", BAD)).status == 202


async def test_a_repetition_of_what_was_accepted_is_answered_even_if_the_schema_is_stricter_now(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    await validate(stand, tenant, SchemaValidation.OFF)
    await event_type(stand, tenant, "repeated", SCHEMA)
    first = await create(client, tenant, "repeated", BAD, **{"Idempotency-Key": "schema-1"})
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    again = await create(client, tenant, "repeated", BAD, **{"Idempotency-Key": "schema-1"})
    assert (first.status, again.status, again.json["id"]) == (202, 202, first.json["id"])
    assert (await create(client, tenant, "repeated", BAD)).status == 422


async def test_what_a_provider_sends_is_kept_with_the_reason(client: Client, stand: Stand, tenant: Tenant) -> None:
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    await event_type(stand, tenant, "user.created", {"properties": {"data": SCHEMA}})
    body = b'{"type":"user.created","data":{"n":"secret"}}'
    headers = standard_signed(body, "msg_schema")
    answer = await client.request("POST", tenant.path_in("standard-webhooks"), data=body, headers=headers)
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "data"])
    [row] = await stand.rejected(tenant)
    assert (row["status"], row["reason"]) == (
        422,
        'schema: /data: "id" is a required property; /data/n: the value is not of type "integer"',
    )


async def test_a_reason_that_holds_a_nul_is_kept_without_it(client: Client, stand: Stand, tenant: Tenant) -> None:
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    await event_type(stand, tenant, "user.renamed", {"properties": {"data": NO_MORE}})
    before = await stand.rejected(tenant, 0)
    body = b'{"type":"user.renamed","data":{"id":"x","a\\u0000b":1}}'
    headers = standard_signed(body, "msg_nul")
    answer = await client.request("POST", tenant.path_in("standard-webhooks"), data=body, headers=headers)
    assert answer.status == 422
    row = (await stand.rejected(tenant, len(before) + 1))[-1]
    assert row["reason"] == "schema: /data: Additional properties are not allowed ('ab' was unexpected)"
    assert row["body"] == body


async def test_what_a_producer_publishes_with_a_nul_is_kept_without_it(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    await event_type(stand, tenant, "by.broker.renamed", NO_MORE)
    before = await stand.rejected(tenant, 0)
    data = '{"id":"x","a\\u0000b":1}'
    await publish(channel, stand, cloud_event(tenant, "nul", data=data, type="by.broker.renamed"))
    await next_dead(channel, stand)
    row = (await stand.rejected(tenant, len(before) + 1))[-1]
    assert row["reason"].endswith("Additional properties are not allowed ('ab' was unexpected)")


async def test_what_a_producer_publishes_is_parked_with_the_reason(
    ingress: Service, stand: Stand, tenant: Tenant, channel: AbstractChannel
) -> None:
    await validate(stand, tenant, SchemaValidation.ENFORCE)
    await event_type(stand, tenant, "by.broker", SCHEMA)
    await publish(channel, stand, cloud_event(tenant, "schema", data='{"n":"secret"}', type="by.broker"))
    dead = await next_dead(channel, stand)
    assert 'the schema of by.broker is violated: /: "id" is a required property; /n: the value' in str(dead.headers)


@pytest.mark.parametrize("payload", [BAD, {"id": "x"}])
async def test_a_warning_stays_with_the_message(client: Client, stand: Stand, tenant: Tenant, payload: Any) -> None:
    name = f"warned.{len(payload)}.{'id' in payload}"
    await validate(stand, tenant, SchemaValidation.WARN)
    await event_type(stand, tenant, name, SCHEMA)
    assert (await create(client, tenant, name, payload)).status == 202
    violations = [
        {"path": [], "message": '"id" is a required property'},
        {"path": ["n"], "message": 'the value is not of type "integer"'},
    ]
    assert await recorded(stand, name) == (violations if payload is BAD else None)


@pytest.mark.parametrize(("spelled", "shown"), [(r"a\u0000b", "ab"), (r"a\\u0000b", r"a\u0000b"), (r"\"\\", '"\\')])
async def test_a_warning_names_what_it_can(
    client: Client, stand: Stand, tenant: Tenant, spelled: str, shown: str
) -> None:
    name = f"warned.of.{len(spelled)}"
    await validate(stand, tenant, SchemaValidation.WARN)
    await event_type(stand, tenant, name, {"additionalProperties": {"type": "integer"}})
    body = f'{{"eventType":"{name}","payload":{{"{spelled}":"x"}}}}'.encode()
    answer = await client.request("POST", tenant.path, data=body, headers={"Content-Type": "application/json"})
    assert answer.status == 202
    assert [violation["path"] for violation in await recorded(stand, name)] == [[shown]]
