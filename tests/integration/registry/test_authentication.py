"""Who may do what: keys, scopes, and other organisations' objects."""

from typing import Any

import asyncpg
import pytest

from services.registry.routes import ROUTES
from tests.integration.registry.conftest import Registry
from tests.support.client import Client, connected

HEADERS = {
    "none": {},
    "no scheme": {"Authorization": "hlk_abc"},
    "another scheme": {"Authorization": "Basic aGxrOmFiYw=="},
    "empty": {"Authorization": "Bearer "},
    "unknown": {"Authorization": "Bearer hlk_unknown"},
    "over-long": {"Authorization": "Bearer " + "x" * 5000},
    "not ASCII": {"Authorization": "Bearer schlüssel"},
}
EVERY_ROUTE = [(route.operation.method, route.operation.path) for route in ROUTES if route.operation.access is not None]
WRITES = [(method, path) for method, path in EVERY_ROUTE if method != "GET"]


def somewhere(path: str) -> str:
    """A path of that route, to nothing that is there."""
    return "/api/v1" + path.replace("{", "").replace("}", "")


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
async def test_without_a_known_key_every_route_is_401(registry: Registry, headers: dict[str, str]) -> None:
    async with connected(registry.url, "") as client:
        for method, path in EVERY_ROUTE:
            answer = await client.request(method, somewhere(path), headers={"Authorization": ""} | headers)
            assert (answer.status, answer.json["code"]) == (401, "authentication_failed"), (method, path)
            assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_a_reading_key_reads_and_does_not_write(registry: Registry, api: Client) -> None:
    app = await api.create_application()
    async with connected(registry.url, registry.key_of(registry.organisation, "--scope", "read")) as reader:
        assert (await reader.get(f"/app/{app}"))["id"] == app
        for method, path in WRITES:
            answer = await reader.request(method, somewhere(path), json={})
            assert (answer.status, answer.json["code"]) == (403, "permission_denied"), (method, path)


async def test_a_publishing_key_may_not_manage(registry: Registry) -> None:
    async with connected(registry.url, registry.key_of(registry.organisation, "--scope", "publish")) as publisher:
        for method, path in EVERY_ROUTE:
            answer = await publisher.request(method, somewhere(path))
            assert answer.status == 403, (method, path)


async def test_an_expired_key_is_401(registry: Registry, sql: "asyncpg.Connection[asyncpg.Record]") -> None:
    key = registry.key_of(registry.organisation, "--name", "short-lived", "--expires-days", "1")
    async with connected(registry.url, key) as client:
        assert (await client.request("GET", "/api/v1/app")).status == 200
        await sql.execute("""
            UPDATE hookledger.registry_object SET data = data || '{"expiresAt": "2020-01-01T00:00:00Z"}'
            WHERE kind = 'api_key' AND data ->> 'name' = 'short-lived'
        """)
        while (await client.request("GET", "/api/v1/app")).status == 200:  # a key is remembered for a second
            pass
        assert (await client.request("GET", "/api/v1/app")).status == 401


async def test_what_belongs_to_another_organisation_is_404(registry: Registry, api: Client) -> None:
    app = (await api.post("/app", {"name": "mine", "uid": "mine"}))["id"]
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost", "uid": "e"}))["id"]
    source = (await api.create_source(app, "github", "secret")).id
    await api.post("/event-type", {"name": "mine", "description": ""})
    body: dict[str, Any] = {"name": "x", "description": "", "url": "http://localhost", "provider": "github"}
    body |= {"headers": {}, "since": "2026-01-01T00:00:00Z", "eventType": "mine"}
    async with connected(registry.url, registry.tenant()) as stranger:
        for method, path in EVERY_ROUTE:
            if "{" not in path or (method == "PUT" and path in {"/app/{app}", "/event-type/{name}"}):
                continue
            names = {"app": app, "endpoint": endpoint, "source": source, "name": "mine"}
            unknown = {"msg": "msg_x", "attempt": "atmpt_x", "delivery": "dlv_x", "job": "job_x"}
            answer = await stranger.request(method, "/api/v1" + path.format(**names, **unknown), json=body)
            assert (answer.status, answer.json["code"]) == (404, "not_found"), (method, path)
        assert (await stranger.request("PUT", f"/api/v1/app/{app}", json=body)).status == 404
        assert (await stranger.request("PUT", "/api/v1/app/mine", json=body)).status == 201
        assert (await stranger.request("GET", "/api/v1/app")).json["data"][0]["id"] != app
    assert (await api.get("/app/mine"))["id"] == app
    assert (await api.get(f"/app/{app}"))["name"] == "mine"
    assert (await api.get(f"/app/{app}/endpoint/e"))["id"] == endpoint


async def test_an_endpoint_of_another_application_is_404(api: Client) -> None:
    mine, other = await api.create_application(), await api.create_application()
    endpoint = (await api.post(f"/app/{mine}/endpoint", {"url": "http://localhost"}))["id"]
    assert (await api.request("GET", f"/api/v1/app/{other}/endpoint/{endpoint}")).status == 404


async def test_what_belongs_to_a_deleted_application_is_404(api: Client) -> None:
    app = await api.create_application()
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    await api.delete(f"/app/{app}")
    assert (await api.request("GET", f"/api/v1/app/{app}/endpoint/{endpoint}")).status == 404


async def test_where_secrets_are_shown_once_reading_one_is_403_and_rotation_shows_the_new_one(
    registry: Registry,
) -> None:
    async with connected(registry.url, registry.tenant()) as client:
        app = await client.create_application()
        made = await client.post(f"/app/{app}/endpoint", {"url": "http://localhost"})
        assert made["secret"].startswith("whsec_")
        path = f"/api/v1/app/{app}/endpoint/{made['id']}"
        assert "secret" not in (await client.request("GET", path)).json
        refused = await client.request("GET", f"{path}/secret")
        assert (refused.status, refused.json["code"]) == (403, "permission_denied")
        assert "rotate" in refused.json["detail"]
        rotated = await client.request("POST", f"{path}/secret/rotate", json={})
        assert rotated.status == 200
        assert rotated.json["key"] != made["secret"]
        own = await client.request("POST", f"{path}/secret/rotate", json={"key": made["secret"]})
        assert (own.status, own.body) == (204, b"")


async def test_at_most_ten_old_secrets_sign(api: Client) -> None:
    app = await api.create_application()
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    path = f"/api/v1/app/{app}/endpoint/{endpoint}/secret/rotate"
    for _ in range(10):
        assert (await api.request("POST", path, json={})).status == 204
    refused = await api.request("POST", path, json={})
    assert (refused.status, refused.json["code"]) == (400, "bad_request")
    without_grace = await api.request("POST", path, json={"gracePeriodSeconds": 0})
    assert without_grace.status == 204
    assert (await api.request("POST", path, json={})).status == 204
