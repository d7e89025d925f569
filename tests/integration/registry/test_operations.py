"""What the registry answers to resend, recover, replay, examples, headers and erasing; the dispatcher does the rest."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import Place, accept, deliver
from tests.support.client import Client, connected

Sql = Any  # a connection of asyncpg


@pytest.fixture
async def app(api: Client) -> str:
    return await api.create_application()


@pytest.fixture
async def endpoint(api: Client, app: str) -> str:
    return (await api.create_endpoint(app, "http://localhost/")).id


def ago(**parts: float) -> str:
    return (datetime.now(UTC) - timedelta(**parts)).isoformat()


async def refused(api: Client, method: str, path: str, json: Any = None) -> tuple[int, Any]:
    answer = await api.request(method, f"/api/v1{path}", json=json)
    return answer.status, answer.json["detail"]


# Jobs


async def test_resend_begins_a_job_that_can_be_read_listed_and_cancelled(
    registry: Registry, api: Client, app: str, endpoint: str, sql: Sql
) -> None:
    message = ids.encode(Prefix.MESSAGE, await accept(sql, Place.of(registry.organisation, app)))
    job = await api.post(f"/app/{app}/msg/{message}/endpoint/{endpoint}/resend", None)
    assert (job["status"], job["task"], job["messageId"]) == ("running", "message.resend", message)
    assert await api.get(f"/app/{app}/job/{job['id']}") == job
    assert await api.get(f"/background-task/{job['id']}") == job
    assert [item["id"] for item in (await api.get(f"/app/{app}/job"))["data"]] == [job["id"]]
    cancelled = await api.post(f"/app/{app}/job/{job['id']}/cancel", None)
    assert cancelled["status"] == "cancelled"
    assert (await api.post(f"/app/{app}/job/{job['id']}/cancel", None))["status"] == "cancelled"
    rows = await sql.fetch(
        "SELECT kind, actor FROM hookledger.registry_fact WHERE stream = $1 ORDER BY version",
        ids.decode(Prefix.JOB, job["id"]),
    )
    assert [row["kind"] for row in rows] == ["JobCreated", "JobCancelled"]
    assert all(row["actor"].startswith("key:") for row in rows)


async def test_a_resend_of_what_is_not_there_or_cannot_be_sent(
    registry: Registry, api: Client, app: str, endpoint: str, sql: Sql
) -> None:
    message = ids.encode(Prefix.MESSAGE, await accept(sql, Place.of(registry.organisation, app)))
    other = ids.encode(
        Prefix.MESSAGE, await accept(sql, Place.of(registry.organisation, await api.create_application()))
    )
    base = f"/app/{app}/msg"
    assert (await refused(api, "POST", f"{base}/msg_nothing/endpoint/{endpoint}/resend"))[0] == 404
    assert (await refused(api, "POST", f"{base}/{other}/endpoint/{endpoint}/resend"))[0] == 404
    assert (await refused(api, "POST", f"{base}/{message}/endpoint/ep_nothing/resend"))[0] == 404
    await api.patch(f"/app/{app}/endpoint/{endpoint}", {"disabled": True})
    assert (await refused(api, "POST", f"{base}/{message}/endpoint/{endpoint}/resend"))[0] == 409
    await api.patch(f"/app/{app}/endpoint/{endpoint}", {"disabled": False})
    await api.delete(f"{base}/{message}/content")
    status, detail = await refused(api, "POST", f"{base}/{message}/endpoint/{endpoint}/resend")
    assert (status, "erased" in detail) == (409, True)


@pytest.mark.parametrize("what", ["recover", "replay-missing", "replay"])
async def test_recover_and_replay_begin_a_job_over_a_time(api: Client, app: str, endpoint: str, what: str) -> None:
    answer = await api.request(
        "POST", f"/api/v1/app/{app}/endpoint/{endpoint}/{what}", json={"since": ago(days=1), "eventTypes": ["a.b"]}
    )
    assert answer.status == 202
    assert answer.json["status"] == "running"
    assert answer.json["task"].startswith("endpoint.")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"since": "yesterday"},
        {"since": "2026-01-01T00:00:00"},
        {"since": 5},
        {"since": "2999-01-01T00:00:00Z"},
        {"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
    ],
)
async def test_a_time_that_is_none_is_422(api: Client, app: str, endpoint: str, body: Any) -> None:
    for what in ("recover", "replay-missing", "replay"):
        status, detail = await refused(api, "POST", f"/app/{app}/endpoint/{endpoint}/{what}", body)
        assert status == 422
        assert detail[0]["loc"][0] == "body"


async def test_recovering_reaches_back_14_days_and_a_replay_further(api: Client, app: str, endpoint: str) -> None:
    body = {"since": ago(days=14, minutes=1)}
    assert (await refused(api, "POST", f"/app/{app}/endpoint/{endpoint}/recover", body))[0] == 422
    assert (await api.post(f"/app/{app}/endpoint/{endpoint}/recover", {"since": ago(days=13)}))["id"]
    assert (await api.post(f"/app/{app}/endpoint/{endpoint}/replay", body))["id"]


async def test_jobs_of_another_organisation_are_not_there(
    registry: Registry, api: Client, app: str, endpoint: str
) -> None:
    job = (await api.post(f"/app/{app}/endpoint/{endpoint}/recover", {"since": ago(days=1)}))["id"]
    async with connected(registry.url, registry.tenant()) as stranger:
        assert (await refused(stranger, "GET", f"/background-task/{job}"))[0] == 404
        own = await stranger.create_application()
        assert (await refused(stranger, "GET", f"/app/{own}/job/{job}"))[0] == 404
        assert (await refused(stranger, "POST", f"/app/{own}/job/{job}/cancel"))[0] == 404


# Examples


async def test_an_example_is_made_from_the_newest_schema(api: Client, app: str, endpoint: str, sql: Sql) -> None:
    schemas = {
        "1": {"type": "object", "examples": [{"old": True}]},
        "2": {"type": "object", "properties": {"total": {"type": "integer"}, "at": {"type": "string"}}},
    }
    await api.post("/event-type", {"name": "invoice.paid", "description": "x", "schemas": schemas})
    path = f"/app/{app}/endpoint/{endpoint}/send-example"
    message = await api.post(path, {"eventType": "invoice.paid"})
    assert message["payload"] == {"total": 0, "at": "string"}
    assert (await api.get(f"/app/{app}/msg/{message['id']}"))["payload"] == message["payload"]
    outbox = "SELECT count(*) FROM hookledger.outbox WHERE message = $1"
    assert not await sql.fetchval(outbox, ids.decode(Prefix.MESSAGE, message["id"])), "it would go to all endpoints"
    assert (await refused(api, "POST", path, {"eventType": "no.such"}))[0] == 404
    assert (await refused(api, "POST", path, {"eventType": "not a name"}))[0] == 422


# Headers


async def test_headers_are_set_listed_patched_and_the_sensitive_ones_never_shown(
    api: Client, app: str, endpoint: str, sql: Sql
) -> None:
    path = f"/api/v1/app/{app}/endpoint/{endpoint}/headers"

    async def shown() -> tuple[dict[str, str], list[str]]:
        found = (await api.request("GET", path)).json
        return found["headers"], found["sensitive"]

    given = {"X-Team": "billing", "Authorization": "Bearer swordfish", "X-Plain": "hush-hush"}
    answer = await api.request("PUT", path, json={"headers": given, "sensitive": ["x-plain"]})
    assert answer.status == 204
    assert await shown() == ({"X-Team": "billing"}, ["Authorization", "X-Plain"])
    patched = {"x-team": None, "X-Region": "eu", "x-plain": "hush"}
    assert (await api.request("PATCH", path, json={"headers": patched})).status == 204
    assert await shown() == ({"X-Region": "eu"}, ["Authorization", "x-plain"])
    assert (await api.request("POST", path.replace("headers", "secret/rotate"), json={})).status in {200, 204}
    await api.patch(f"/app/{app}/endpoint/{endpoint}", {"description": "changed"})
    assert await shown() == ({"X-Region": "eu"}, ["Authorization", "x-plain"])
    identity = ids.decode(Prefix.ENDPOINT, endpoint)
    assert await sql.fetchval("SELECT count(*) FROM hookledger.secret WHERE owner = $1", identity) == 4
    facts = await sql.fetch("SELECT data FROM hookledger.registry_fact WHERE stream = $1", identity)
    assert not any(secret in row["data"] for row in facts for secret in (b"swordfish", b"hush"))


async def test_headers_may_be_given_on_creation(api: Client, app: str) -> None:
    made = await api.create_endpoint(app, "http://localhost/", headers={"X-A": "1", "X-Api-Key": "k"})
    found = await api.get(f"/app/{app}/endpoint/{made.id}/headers")
    assert found == {"headers": {"X-A": "1"}, "sensitive": ["X-Api-Key"]}


@pytest.mark.parametrize(
    "headers",
    [
        *({name: "x"} for name in ("Host", "content-length", "COOKIE", "webhook-id", "Svix-Id", "x-amzn-trace")),
        *({"X-A": value} for value in ("a\nb", "a\r\nX-B: c", "\x00", "é", " a", "x" * 5000)),
        {"": "x"},
        {"X A": "x"},
        {"X-A": "1", "x-a": "2"},
        {f"X-{number}": "x" for number in range(51)},
        {"X-A": 1},
    ],
    ids=str,
)
async def test_a_header_that_cannot_be_sent_is_422(api: Client, app: str, endpoint: str, headers: Any) -> None:
    assert (await refused(api, "PUT", f"/app/{app}/endpoint/{endpoint}/headers", {"headers": headers}))[0] == 422


async def test_headers_have_16_kib_in_all_however_they_came_to_be(api: Client, app: str, endpoint: str) -> None:
    path = f"/app/{app}/endpoint/{endpoint}/headers"

    async def patched(name: str, value: str | None, *sensitive: str) -> int:
        body = {"headers": {name: value}, "sensitive": sensitive}
        return (await api.request("PATCH", f"/api/v1{path}", json=body)).status

    value = "x" * (4096 - len("X-1"))
    assert await patched("X-1", value) == 204
    assert await patched("X-2", value, "x-2") == 204
    assert await patched("X-3", value, "x-3") == 204
    assert await patched("X-4", value) == 204
    for name in ("X-5", "X-Token"):
        status, detail = await refused(api, "PATCH", path, {"headers": {name: "y"}})
        assert status == 422
        assert "16384 bytes in all" in str(detail)
    assert await patched("x-2", value) == 204, "in place of itself"
    assert await patched("x-2", None) == 204
    assert await patched("X-5", "y") == 204


# Erasing


async def test_contents_are_erased_and_the_facts_stay(
    registry: Registry, api: Client, app: str, endpoint: str, sql: Sql
) -> None:
    place = Place.of(registry.organisation, app)
    identity = await accept(sql, place)
    await deliver(sql, place, identity, ids.decode(Prefix.ENDPOINT, endpoint), [200], response=b"a secret")
    message = ids.encode(Prefix.MESSAGE, identity)
    [attempt] = (await api.get(f"/app/{app}/attempt/msg/{message}"))["data"]
    assert (attempt["response"], "token" in attempt["url"]) == ("a secret", True)
    for _ in range(2):
        await api.delete(f"/app/{app}/msg/{message}/attempt/{attempt['id']}/content")
        await api.delete(f"/app/{app}/msg/{message}/content")
    again = await api.get(f"/app/{app}/msg/{message}/attempt/{attempt['id']}")
    assert (again["response"], "token" in again["url"], again["responseStatusCode"]) == ("EXPUNGED", False, 200)
    assert (await api.get(f"/app/{app}/msg/{message}"))["payload"] == {"expired": True}
    recorded = await sql.fetch(
        "SELECT actor FROM hookledger.registry_fact WHERE kind = 'ErasureCreated' AND app = $1", place.app
    )
    assert len(recorded) == 2
    assert all(row["actor"].startswith("key:") for row in recorded)
    assert (await refused(api, "DELETE", f"/app/{app}/msg/msg_nothing/content"))[0] == 404
    assert (await refused(api, "DELETE", f"/app/{app}/msg/{message}/attempt/atmpt_nothing/content"))[0] == 404
