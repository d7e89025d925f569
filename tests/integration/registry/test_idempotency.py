"""`Idempotency-Key`: the first answer again, for a day."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.integration.registry.conftest import Registry
from tests.support.client import Answer, Client, connected


async def post(client: Client, path: str, key: str, body: Any) -> Answer:
    headers = {"Authorization": f"Bearer {client.key}", "Idempotency-Key": key}
    return await client.request("POST", f"/api/v1{path}", json=body, headers=headers)


async def test_the_same_request_gets_the_first_answer_again(api: Client) -> None:
    app = await api.create_application()
    first = await post(api, f"/app/{app}/endpoint", "k1", {"url": "http://localhost"})
    again = await post(api, f"/app/{app}/endpoint/", "k1", {"url": "http://localhost"})
    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body  # the secret too
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    assert len((await api.get(f"/app/{app}/endpoint"))["data"]) == 1


async def test_another_body_under_the_same_key_is_409(api: Client) -> None:
    assert (await post(api, "/app", "k2", {"name": "a"})).status == 201
    refused = await post(api, "/app", "k2", {"name": "b"})
    assert (refused.status, refused.json["code"]) == (409, "conflict")
    assert (await post(api, "/app?get_if_exists=true", "k2", {"name": "a"})).status == 409


async def test_a_key_counts_for_its_path_and_its_api_key_only(registry: Registry, api: Client) -> None:
    first = (await post(api, "/app", "k3", {"name": "a"})).json["id"]
    elsewhere = await post(api, "/event-type", "k3", {"name": "a", "description": ""})
    assert elsewhere.status == 201
    async with connected(registry.url, registry.another_key()) as other:
        second = await post(other, "/app", "k3", {"name": "a"})
    assert second.json["id"] != first


async def test_a_refusal_is_remembered_like_any_answer(api: Client) -> None:
    first = await post(api, "/app", "k4", {"name": ""})
    again = await post(api, "/app", "k4", {"name": ""})
    assert (first.status, again.status, again.body) == (422, 422, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.fixture
async def crowd(registry: Registry) -> AsyncIterator[Client]:
    """Two hundred connections that two thousand requests may wait for."""
    async with connected(registry.url, registry.key, patience=100) as client:
        yield client


async def test_two_thousand_creations_at_once_under_one_key_make_one_object(crowd: Client) -> None:
    answers = await asyncio.gather(*(post(crowd, "/app", "k5", {"name": "keyed"}) for _ in range(2000)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
    assert [item["name"] for item in (await crowd.get("/app", limit="250"))["data"]].count("keyed") == 1


async def test_two_thousand_creations_at_once_with_one_uid_make_one_object(crowd: Client) -> None:
    body = {"name": "named", "uid": "only"}
    answers = await asyncio.gather(
        *(
            crowd.request("POST", f"/api/v1/app?get_if_exists={wanted}", json=body)
            for wanted in ("true", "false") * 1000
        )
    )
    statuses = [answer.status for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {200, 201, 409}
    assert len({answer.json["id"] for answer in answers if answer.status < 300}) == 1
    assert [item["name"] for item in (await crowd.get("/app", limit="250"))["data"]].count("named") == 1


async def test_after_a_day_the_key_is_free(api: Client, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    first = (await post(api, "/app", "k6", {"name": "a"})).json["id"]
    await sql.execute("UPDATE hookledger.answer SET created_at = created_at - interval '25 hours'")
    second = await post(api, "/app", "k6", {"name": "b"})
    assert (second.status, second.json["id"] != first) == (201, True)


async def test_how_long_a_key_holds_is_a_setting(registry: Registry, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    replica = registry.installation.service("registry", replica="short", settings={"IDEMPOTENCY_HOURS": "0.5"})
    replica.start()
    try:
        replica.wait_ready()
        async with connected(replica.url, registry.key) as client:
            first = await post(client, "/app", "k8", {"name": "a"})
            await sql.execute("UPDATE hookledger.answer SET created_at = created_at - interval '29 minutes'")
            again = await post(client, "/app", "k8", {"name": "a"})
            await sql.execute("UPDATE hookledger.answer SET created_at = created_at - interval '1 minute'")
            later = await post(client, "/app", "k8", {"name": "b"})
    finally:
        replica.stop(grace_s=10)
    assert again.body == first.body
    assert (later.status, later.json["id"] != first.json["id"]) == (201, True)


async def test_stored_answers_hold_no_secret_in_the_open(
    api: Client, sql: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    app = await api.create_application()
    made = await post(api, f"/app/{app}/endpoint", "k7", {"url": "http://localhost"})
    stored = await sql.fetch("SELECT sealed FROM hookledger.answer WHERE sealed IS NOT NULL")
    assert stored
    assert all(made.json["secret"].encode() not in row["sealed"] for row in stored)


@pytest.mark.parametrize("key", ["", "x" * 257, "tab\tinside", "schlüssel"])
async def test_a_key_that_cannot_be_one_is_422(api: Client, key: str) -> None:
    refused = await post(api, "/app", key, {"name": "a"})
    assert (refused.status, refused.json["detail"][0]["loc"]) == (422, ["header", "idempotency-key"])
