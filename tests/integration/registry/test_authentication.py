"""Who may do what: keys, scopes, and other organisations' objects."""

from datetime import timedelta
from typing import Any

import pytest

from libs.common.contracts.operations import Capability
from libs.common.contracts.registry import Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.runtime.clock import new_id, now
from services.registry.access import ACCESS
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
    "unknown token": {"Authorization": "Bearer hlt_unknown"},
}
BODY = {
    "name": "x", "description": "", "url": "http://localhost", "provider": "github", "scopes": ["read"],
    "secretReveal": "always", "headers": {}, "since": "2026-01-01T00:00:00Z", "eventType": "x",
    "expression": "@", "payload": {},
}  # fmt: skip
"""What each route can read something from, or says is missing in."""

LAST = ("DELETE", "expire-all", "logout", "PUT/event-type")
"""Routes after which others would not find what they need."""


async def furnished(owner: Client) -> dict[str, str]:
    """An application with what can be in it, by the names that routes have for it; what nobody published is unknown."""
    app = await owner.create_application()
    name = f"type-{app}"
    await owner.post("/event-type", {"name": name, "description": ""})
    endpoint = (await owner.post(f"/app/{app}/endpoint", {"url": "http://localhost"}))["id"]
    yesterday = (now() - timedelta(days=1)).isoformat()
    return {
        "app": app,
        "endpoint": endpoint,
        "job": (await owner.post(f"/app/{app}/endpoint/{endpoint}/recover", {"since": yesterday}))["id"],
        "source": (await owner.create_source(app, "github", "secret")).id,
        "name": name,
        "key": (await owner.post("/key", {"name": "a key", "scopes": ["read"]}))["id"],
        "msg": ids.encode(Prefix.MESSAGE, new_id()),
        "attempt": ids.encode(Prefix.ATTEMPT, new_id()),
        "delivery": ids.encode(Prefix.DELIVERY, new_id()),
        "rejected": ids.encode(Prefix.REJECTED, new_id()),
    }


async def key_of(owner: Client, *scopes: str, **fields: Any) -> Any:
    return await owner.post("/key", {"scopes": scopes, **fields})


async def token_of(owner: Client, app: str, **fields: Any) -> str:
    return str((await owner.post(f"/auth/app-portal-access/{app}", fields))["token"])


async def statuses(url: str, headers: dict[str, str], names: dict[str, str]) -> dict[tuple[str, str], int]:
    """What each route answers to that caller, about those objects."""
    found = {}
    async with connected(url, "") as client:
        for method, path in sorted(ACCESS, key=lambda route: any(word in "".join(route) for word in LAST)):
            place = "/api/v1" + path.format(**names)
            sent = {"Authorization": ""} | headers
            answer = await client.request(method, place, json=None if method == "GET" else BODY, headers=sent)
            assert answer.status < 500, (method, path, answer.body)
            found[method, path] = answer.status
    return found


def bearing(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def admitted(status: int) -> bool:
    return status not in {401, 403}


def test_each_route_has_a_rule_and_each_rule_a_route() -> None:
    served = [route.operation for route in ROUTES]
    assert set(ACCESS) == {(each.method, each.path) for each in served if each.access is not None}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
async def test_without_a_known_key_every_route_is_401(registry: Registry, api: Client, headers: dict[str, str]) -> None:
    assert set((await statuses(registry.url, headers, await furnished(api))).values()) == {401}
    answer = await api.request("GET", "/api/v1/app", headers={"Authorization": ""} | headers)
    assert (answer.json["code"], answer.headers["WWW-Authenticate"]) == ("authentication_failed", "Bearer")


async def test_an_expired_a_revoked_and_an_ended_credential_are_401_everywhere(registry: Registry, api: Client) -> None:
    names = await furnished(api)
    expired = await key_of(api, "admin", expiresAt=(now() + timedelta(seconds=0.5)).isoformat())
    revoked = await key_of(api, "admin")
    await api.delete(f"/key/{revoked['id']}")
    ended = await token_of(api, names["app"])
    await api.request("POST", "/api/v1/auth/logout", headers=bearing(ended))
    while (await api.request("GET", "/api/v1/app", headers=bearing(expired["key"]))).status == 200:
        pass
    for text in (expired["key"], revoked["key"], ended):
        assert set((await statuses(registry.url, bearing(text), names)).values()) == {401}


@pytest.mark.parametrize("scope", [*Scope])
async def test_a_key_is_admitted_by_the_routes_whose_scope_it_has(
    registry: Registry, api: Client, scope: Scope
) -> None:
    key = (await key_of(api, scope))["key"]
    found = await statuses(registry.url, bearing(key), await furnished(api))
    for route, status in found.items():
        needed = ACCESS[route].scope
        allowed = needed is not None and scope in {needed, Scope.ADMIN}
        assert (admitted(status), status == 403) == (allowed, not allowed), (route, status)


@pytest.mark.parametrize(
    "fields", [{}, {"readOnly": True}, {"capabilities": ["ViewBase", "CreateAttempts"]}], ids=["all", "read", "some"]
)
async def test_a_token_is_admitted_by_the_routes_that_its_capabilities_open_and_by_no_other(
    registry: Registry, api: Client, fields: dict[str, Any]
) -> None:
    names = await furnished(api)
    token = await token_of(api, names["app"], **fields)
    held = {"ViewBase"} if "readOnly" in fields else set(fields.get("capabilities", Capability))
    for route, status in (await statuses(registry.url, bearing(token), names)).items():
        allowed = ACCESS[route].capability in held
        assert (admitted(status), status == 403) == (allowed, not allowed), (route, status)


async def test_to_a_token_other_applications_are_not_there(registry: Registry, api: Client) -> None:
    token = await token_of(api, await api.create_application())
    for route, status in (await statuses(registry.url, bearing(token), await furnished(api))).items():
        if ACCESS[route].capability is None:
            assert status == 403, route
        elif "{app}" in route[1]:
            assert status == 404, route
    both = [("GET", "/event-type"), ("GET", "/event-type/{name}"), ("POST", "/auth/logout")]
    assert {route for route in ACCESS if ACCESS[route].capability and "{app}" not in route[1]} == set(both)


async def test_what_belongs_to_another_organisation_is_404(registry: Registry, api: Client) -> None:
    names = await furnished(api)
    found = await statuses(registry.url, bearing(registry.tenant()), names)
    for (method, path), status in found.items():
        if path == "/event-type/{name}" and method in {"PUT", "DELETE"}:
            assert status in {201, 204}  # the stranger's own, of the same name
        elif ACCESS[method, path].scope is not None and "{" in path:
            assert status == 404, (method, path)
    assert (await api.get(f"/app/{names['app']}/endpoint/{names['endpoint']}"))["url"] == "http://localhost/"
    assert (await api.get(f"/event-type/{names['name']}"))["archived"] is False
    assert (await api.get(f"/key/{names['key']}"))["name"] == "a key"


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
