"""`POST /api/v1/app/{app}/msg`: what producers get for what they publish over HTTP."""

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from deploy.stack.services import Service
from libs.common.contracts.credentials import KEY_BYTES, TOKEN_PREFIX, format_key
from libs.common.contracts.registry import ApplicationDocument, Kind, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.runtime.clock import new_id, now
from tests.integration.ingress.raw import talk
from tests.integration.ingress.stand import Stand, Tenant
from tests.support.client import Answer, Client, connected

RAW = b'{ "z":1.0, "a": [1,2 ,3], "e":"\\u00e9\xc3\xa9", "n": 12345678901234567890 }'


async def create(client: Client, tenant: Tenant, path: str = "", headers: Any = None, **fields: Any) -> Answer:
    message = {"eventType": "order.completed", "payload": {"n": 1}} | fields
    return await client.request("POST", path or tenant.path, json=message, headers=headers)


def identity(answer: Answer) -> Any:
    return ids.decode(Prefix.MESSAGE, answer.json["id"])


async def body_of(stand: Stand, answer: Answer) -> bytes:
    found = await stand.observer.fetchval(
        "SELECT body FROM hookledger.message_body WHERE message = $1", identity(answer)
    )
    return bytes(found)


# The message


async def test_the_payload_is_the_exact_slice_of_the_request(client: Client, stand: Stand, tenant: Tenant) -> None:
    request = b'{"eventType":"order.completed", "payload" :  ' + RAW + b"  }"
    answer = await client.request("POST", tenant.path, data=request)
    assert answer.status == 202
    assert await body_of(stand, answer) == RAW
    assert b'"payload":' + RAW in answer.body


async def test_the_answer_is_the_message(client: Client, stand: Stand, tenant: Tenant) -> None:
    answer = await create(client, tenant, eventId="id-1", channels=["b", "a", "b"], tags=["t"], unknown=1)
    row = await stand.observer.fetchrow("SELECT * FROM hookledger.message WHERE id = $1", identity(answer))
    assert row is not None
    assert answer.json == {
        "id": answer.json["id"],
        "eventType": "order.completed",
        "eventId": "id-1",
        "channels": ["a", "b"],
        "tags": ["t"],
        "payload": {"n": 1},
        "timestamp": answer.json["timestamp"],
        "orderingKey": None,
        "deliverAt": None,
    }
    assert datetime.fromisoformat(answer.json["timestamp"]) == row["accepted_at"]
    assert (row["channels"], row["event_id"], row["origin"]) == (["a", "b"], "id-1", "api")
    assert (row["org"], row["app"], row["publish"]) == (tenant.org, tenant.app, False)


async def test_content_can_be_left_out_of_the_answer(client: Client, tenant: Tenant) -> None:
    answer = await create(client, tenant, path=f"{tenant.path}?with_content=false")
    assert (answer.status, answer.json["payload"]) == (202, {})


async def test_an_application_is_found_by_uid_and_with_a_slash(client: Client, tenant: Tenant) -> None:
    assert (await create(client, tenant, path=f"/api/v1/app/{tenant.app_uid}/msg/")).status == 202


async def test_another_applications_uid_stands_for_no_id(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    other = await stand.create(Kind.APPLICATION, ApplicationDocument(name="o"), org=tenant.org, uid=tenant.app_id)
    headers = {"Authorization": f"Bearer {tenant.key}"}
    made = await create(client, tenant, headers=headers)
    assert made.status == 202
    assert await stand.count("message", app=tenant.app) == 1
    assert await stand.count("message", app=other.id) == 0


async def test_an_application_may_ask_for_its_messages_on_the_broker(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant(publish_accepted=True)
    async with connected(client.url, tenant.key) as its_client:
        answer = await create(its_client, tenant)
    assert await stand.count("message", id=identity(answer), publish=True) == 1


async def test_a_raw_payload_is_the_exact_body(client: Client, stand: Stand, tenant: Tenant) -> None:
    parameters = {"rawPayload": "<a>é</a>", "headers": {"Content-Type": "application/xml"}}
    answer = await create(client, tenant, payload={}, transformationsParams=parameters)
    assert answer.status == 202
    assert await body_of(stand, answer) == "<a>é</a>".encode()
    assert await stand.count("message", id=identity(answer), content_type="application/xml") == 1
    shown = {"base64": base64.b64encode("<a>é</a>".encode()).decode(), "contentType": "application/xml"}
    assert answer.json["payload"] == shown


async def test_a_raw_payload_that_is_a_json_object_reads_back_as_one(client: Client, tenant: Tenant) -> None:
    answer = await create(client, tenant, payload={}, transformationsParams={"rawPayload": ' {"a": 1 }'})
    assert b'"payload": {"a": 1 }' in answer.body


# What does not validate


INVALID: dict[str, tuple[bytes, list[str | int]]] = {
    "no JSON": (b"{", ["body"]),
    "no object": (b"[]", ["body"]),
    "no event type": (b'{"payload":{}}', ["body", "eventType"]),
    "no payload": (b'{"eventType":"a"}', ["body", "payload"]),
    "payload is no object": (b'{"eventType":"a","payload":[]}', ["body", "payload"]),
    "payload is null": (b'{"eventType":"a","payload":null}', ["body", "payload"]),
    "event type is no text": (b'{"eventType":1,"payload":{}}', ["body", "eventType"]),
    "event type has a space": (b'{"eventType":"a b","payload":{}}', ["body", "eventType"]),
    "event type ends with a newline": (b'{"eventType":"a\\n","payload":{}}', ["body", "eventType"]),
    "event type is empty": (b'{"eventType":"","payload":{}}', ["body", "eventType"]),
    "event type is too long": (b'{"eventType":"%b","payload":{}}' % (b"a" * 257), ["body", "eventType"]),
    "too many channels": (b'{"eventType":"a","payload":{},"channels":["1","2","3","4","5","6"]}', ["body", "channels"]),
    "no channels": (b'{"eventType":"a","payload":{},"channels":[]}', ["body", "channels"]),
    "a bad channel": (b'{"eventType":"a","payload":{},"channels":["a","b c"]}', ["body", "channels"]),
    "a bad event id": (b'{"eventType":"a","payload":{},"eventId":"a/b"}', ["body", "eventId"]),
    "retention too long": (b'{"eventType":"a","payload":{},"payloadRetentionPeriod":91}', ["body", "payloadRetentionPeriod"]),
    "duplicate keys": (b'{"eventType":"a","payload":{"a":1,"a":2}}', ["body"]),
    "two payloads": (b'{"eventType":"a","payload":{},"payload":{}}', ["body"]),
    "NaN": (b'{"eventType":"a","payload":{"a":NaN}}', ["body"]),
    "raw payload is no JSON": (
        b'{"eventType":"a","payload":{},"transformationsParams":{"rawPayload":"<a>"}}',
        ["body", "transformationsParams", "rawPayload"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
async def test_what_does_not_validate_is_422_and_says_where(client: Client, tenant: Tenant, name: str) -> None:
    body, place = INVALID[name]
    answer = await client.request("POST", tenant.path, data=body)
    assert answer.status == 422
    assert answer.json["code"] == "validation"
    [problem] = answer.json["detail"]
    assert problem["loc"][: len(place)] == place
    assert set(problem) == {"loc", "msg", "type"}


async def test_a_body_over_one_mebibyte_is_413(client: Client, tenant: Tenant) -> None:
    answer = await create(client, tenant, payload={"x": "y" * 1024 * 1024})
    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


# Who may


async def test_without_a_valid_key_it_is_401(client: Client, tenant: Tenant, stand: Stand) -> None:
    expired = await stand.create_key(tenant.org, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for header in ("", "Bearer ", "Bearer hlk_unknown", "Basic abc", f"Bearer {expired}", "Bearer é"):
        answer = await create(client, tenant, headers={"Authorization": header})
        assert (answer.status, answer.json["code"]) == (401, "authentication_failed")


async def test_a_key_that_may_not_publish_is_403(client: Client, tenant: Tenant, stand: Stand) -> None:
    key = await stand.create_key(tenant.org, Scope.READ)
    assert (await create(client, tenant, headers={"Authorization": f"Bearer {key}"})).status == 403


async def test_an_admin_key_may_publish(client: Client, tenant: Tenant, stand: Stand) -> None:
    key = await stand.create_key(tenant.org, Scope.ADMIN)
    assert (await create(client, tenant, headers={"Authorization": f"Bearer {key}"})).status == 202


async def test_another_organisations_application_is_404(client: Client, stand: Stand, tenant: Tenant) -> None:
    other = await stand.create_tenant()
    assert (await create(client, tenant, path=other.path)).status == 404
    assert (await create(client, tenant, path=f"/api/v1/app/{other.app_uid}/msg")).status == 404


async def test_an_unknown_application_is_404(client: Client, tenant: Tenant) -> None:
    unknown = ids.encode(Prefix.APPLICATION, new_id())
    assert (await create(client, tenant, path=f"/api/v1/app/{unknown}/msg")).status == 404


# The registry's changes count from their acknowledgement on


async def test_a_key_and_an_application_created_just_before_are_known(client: Client, stand: Stand) -> None:
    for _ in range(5):
        tenant = await stand.create_tenant()
        answer = await create(client, tenant, headers={"Authorization": f"Bearer {tenant.key}"})
        assert answer.status == 202


async def test_a_key_deleted_just_before_is_refused(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    headers = {"Authorization": f"Bearer {tenant.key}"}
    assert (await create(client, tenant, headers=headers)).status == 202
    key = await stand.observer.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE kind = $1 AND org = $2", Kind.API_KEY, tenant.org
    )
    await stand.delete(key)
    assert (await create(client, tenant, headers=headers)).status == 401
    assert await stand.count("message", org=tenant.org) == 1


async def test_no_request_that_begins_after_a_key_was_revoked_is_accepted(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    headers = {"Authorization": f"Bearer {tenant.key}"}
    key = await stand.observer.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE kind = $1 AND org = $2", Kind.API_KEY, tenant.org
    )
    accepted, revoked = asyncio.Semaphore(0), asyncio.Event()

    async def publish() -> list[int]:
        """Publish until three requests were begun after the revocation; what they were answered."""
        late: list[int] = []
        while len(late) < 3:
            begun_late = revoked.is_set()
            status = (await create(client, tenant, headers=headers)).status
            accepted.release()
            if begun_late:
                late.append(status)
        return late

    async with asyncio.TaskGroup() as group:
        publishers = [group.create_task(publish()) for _ in range(8)]
        for _ in range(20):
            await accepted.acquire()
        await stand.delete(key)
        revoked.set()
    assert {status for publisher in publishers for status in publisher.result()} == {401}
    version = await stand.observer.fetchval(
        "SELECT registry_version FROM hookledger.registry_object WHERE id = $1", key
    )
    newest = await stand.observer.fetchval(
        "SELECT max(registry_version) FROM hookledger.message WHERE org = $1", tenant.org
    )
    assert 0 < newest < version


async def test_of_each_credential_only_a_key_that_may_publish_does(client: Client, stand: Stand) -> None:
    tenant, other = await stand.create_tenant(), await stand.create_tenant()
    expired = await stand.create_key(tenant.org, expires_at=now() - timedelta(seconds=1))
    statuses = {
        "": 401,
        "hlk_unknown": 401,
        expired: 401,
        await stand.create_key(tenant.org, Scope.READ): 403,
        format_key(bytes(KEY_BYTES), TOKEN_PREFIX): 403,
        other.key: 404,
        tenant.key: 202,
        await stand.create_key(tenant.org, Scope.ADMIN): 202,
    }
    for text, status in statuses.items():
        answer = await create(client, tenant, headers={"Authorization": f"Bearer {text}"})
        assert answer.status == status, text


async def test_when_a_key_was_last_used_is_written_once_a_minute(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    headers = {"Authorization": f"Bearer {tenant.key}"}
    before = now()
    for _ in range(3):
        assert (await create(client, tenant, headers=headers)).status == 202
    key = await stand.observer.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE kind = $1 AND org = $2", Kind.API_KEY, tenant.org
    )
    await stand.until(1, "key_use", key=key)
    row = await stand.observer.fetchrow("SELECT last_used_at, xmin FROM hookledger.key_use WHERE key = $1", key)
    assert row is not None
    assert before - timedelta(seconds=1) <= row["last_used_at"] <= now() + timedelta(seconds=1)
    assert (await create(client, tenant, headers=headers)).status == 202
    assert await stand.observer.fetchval("SELECT xmin FROM hookledger.key_use WHERE key = $1", key) == row["xmin"]


async def test_an_application_deleted_just_before_is_404(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    headers = {"Authorization": f"Bearer {tenant.key}"}
    assert (await create(client, tenant, headers=headers)).status == 202
    await stand.delete(tenant.app)
    assert (await create(client, tenant, headers=headers)).status == 404


async def test_a_message_carries_the_version_of_the_endpoints_created_before_it(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    for _ in range(20):
        endpoint = await stand.create_endpoint(tenant.org, tenant.app)
        answer = await create(client, tenant)
        version = await stand.observer.fetchval(
            "SELECT registry_version FROM hookledger.message WHERE id = $1", identity(answer)
        )
        assert version >= endpoint.registry_version


# Answers in the API's form


async def test_errors_have_the_apis_form_and_the_callers_request_id(client: Client, tenant: Tenant) -> None:
    answer = await client.request("POST", tenant.path, data=b"{", headers={"X-Request-Id": "mine"})
    assert set(answer.json) == {"code", "detail"}
    assert answer.headers["X-Request-Id"] == "mine"


async def test_a_body_that_drips_gets_408(ingress: Service, tenant: Tenant) -> None:
    head = (
        f"POST {tenant.path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {tenant.key}\r\nContent-Length: 100\r\n\r\n"
    ).encode()
    answer = await talk(ingress.url, head, *[piece for _ in range(40) for piece in (b"x", 0.1)])
    assert answer.status == 408
    assert orjson.loads(answer.text.partition("\r\n\r\n")[2])["code"] == "request_timeout"


async def test_an_encoded_body_is_415(client: Client, tenant: Tenant) -> None:
    body = json.dumps({"eventType": "a", "payload": {}}).encode()
    answer = await client.request("POST", tenant.path, data=body, headers={"Content-Encoding": "gzip"})
    assert answer.status == 415
