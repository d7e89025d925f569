"""What an organisation has beside its applications: keys, settings, application tokens, and the history of changes."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest
from structlog.testing import capture_logs

from libs.common.contracts.registry import OrganisationDocument, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.postgres.pool import Pool, open_pool
from libs.common.runtime.clock import now
from services.admin.creation import create_key, create_organisation
from services.registry.retention import Retention
from tests.integration.registry.conftest import Registry
from tests.integration.registry.history import Place, accept, deliver
from tests.support.client import Answer, Client, connected
from tests.support.patience import eventually

Sql: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
DAY = 24 * 3600


@pytest.fixture(scope="module")
async def pool(database: str) -> AsyncIterator[Pool]:
    pool = await open_pool(database, "registry", size=1, custom_plans=True)
    yield pool
    await pool.close()


@pytest.fixture
async def own(registry: Registry, pool: Pool) -> AsyncIterator[Client]:
    """A client of an organisation that this test alone changes."""
    async with connected(registry.url, await new_tenant(pool)) as client:
        yield client


async def new_tenant(pool: Pool) -> str:
    """The admin key of a new organisation, as `hookledger` makes it."""
    organisation = await create_organisation(pool, OrganisationDocument(name="tenant"), None)
    return await create_key(pool, organisation.id, name="", scopes=(Scope.ADMIN,), expiry=None)


async def send(client: Client, method: str, path: str, json: Any = None, key: str = "") -> Answer:
    headers = {"Authorization": f"Bearer {key or client.key}"}
    return await client.request(method, f"/api/v1{path}", json=json, headers=headers)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


# Keys


async def test_a_keys_text_is_shown_once_and_stored_nowhere(api: Client, sql: Sql) -> None:
    made = await api.post("/key", {"name": "ci", "scopes": ["read", "read"]})
    assert made["key"].startswith("hlk_")
    assert (await send(api, "GET", "/app", key=made["key"])).status == 200
    read = await api.get(f"/key/{made['id']}")
    assert (read["name"], read["scopes"], read["expiresAt"], read["replaces"]) == ("ci", ["read"], None, None)
    listed = await send(api, "GET", "/key?limit=250")
    assert made["id"] in [key["id"] for key in listed.json["data"]]
    assert "key" not in read
    assert made["key"].encode() not in listed.body
    assert b"hash" not in listed.body
    stored = await sql.fetchval("SELECT string_agg(data::text, '') FROM hookledger.registry_object")
    assert made["key"] not in stored


async def test_the_last_use_of_a_key_can_be_seen(api: Client) -> None:
    made = await api.post("/key", {"name": "used", "scopes": ["read"]})
    assert made["lastUsedAt"] is None
    assert (await send(api, "GET", "/app", key=made["key"])).status == 200
    used = await eventually(lambda: api.get(f"/key/{made['id']}"), lambda key: key["lastUsedAt"] is not None)
    assert abs(moment(used["lastUsedAt"]) - now()) < timedelta(seconds=30)


async def test_a_key_can_be_renamed_narrowed_and_given_an_end(api: Client) -> None:
    made = await api.post("/key", {"name": "wide", "scopes": ["admin"]})
    until = (now() + timedelta(days=1)).isoformat()
    changed = await api.patch(f"/key/{made['id']}", {"name": "narrow", "scopes": ["read"], "expiresAt": until})
    assert (changed["name"], changed["scopes"], moment(changed["expiresAt"])) == ("narrow", ["read"], moment(until))
    assert (await send(api, "POST", "/app", {"name": "x"}, key=made["key"])).status == 403
    assert (await api.patch(f"/key/{made['id']}", {"expiresAt": None}))["expiresAt"] is None


@pytest.mark.parametrize(
    ("body", "location"),
    [
        ({}, ["body"]),
        ({"scopes": []}, ["body", "scopes"]),
        ({"scopes": ["root"]}, ["body", "scopes", 0]),
        ({"scopes": ["read"], "expiresAt": "2020-01-01T00:00:00Z"}, ["body", "expiresAt"]),
        ({"scopes": ["read"], "expiresAt": "2099-01-01T00:00:00"}, ["body", "expiresAt"]),
        ({"scopes": ["read"], "expiresAt": "soon"}, ["body", "expiresAt"]),
        ({"scopes": ["read"], "name": "x" * 257}, ["body", "name"]),
    ],
)
async def test_a_key_that_cannot_be_made_is_422(api: Client, body: Any, location: Any) -> None:
    refused = await send(api, "POST", "/key", body)
    assert (refused.status, refused.json["detail"][0]["loc"]) == (422, location)


async def test_a_rotated_key_lives_on_for_its_grace_and_at_most_two_live(api: Client) -> None:
    first = await api.post("/key", {"name": "rotated", "scopes": ["read"]})
    second = await api.post(f"/key/{first['id']}/rotate", {"gracePeriodSeconds": 60})
    assert (second["name"], second["scopes"], second["replaces"]) == ("rotated", ["read"], first["id"])
    for key in (first, second):
        assert (await send(api, "GET", "/app", key=key["key"])).status == 200
    left = moment((await api.get(f"/key/{first['id']}"))["expiresAt"]) - now()
    assert timedelta(seconds=50) < left < timedelta(seconds=61)
    for key, other in ((first, second), (second, first)):
        refused = await send(api, "POST", f"/key/{key['id']}/rotate")
        assert (refused.status, other["id"] in refused.json["detail"]) == (409, True)
    await api.delete(f"/key/{first['id']}")
    third = await api.post(f"/key/{second['id']}/rotate", {"gracePeriodSeconds": 0})
    assert [(await send(api, "GET", "/app", key=key["key"])).status for key in (first, second, third)] == [
        401,
        401,
        200,
    ]
    assert (await send(api, "GET", f"/key/{second['id']}")).status == 404  # no grace: it was revoked


async def test_after_a_revocation_nothing_is_done_under_the_key(registry: Registry, api: Client) -> None:
    """Not even what was begun before: here the request's body comes after its key was revoked."""
    made = await api.post("/key", {"name": "slow", "scopes": ["admin"]})
    place = urlsplit(registry.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    body = b'{"name": "too late", "uid": "too-late"}'
    head = f"POST /api/v1/app HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {made['key']}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    await eventually(lambda: api.get(f"/key/{made['id']}"), lambda key: key["lastUsedAt"] is not None)
    await api.delete(f"/key/{made['id']}")
    writer.write(body)
    assert b" 401 " in await reader.readline()
    writer.close()
    assert (await send(api, "GET", "/app/too-late")).status == 404


# Settings


async def test_settings_are_read_replaced_and_patched(own: Client) -> None:
    defaults = await own.get("/settings")
    assert defaults == {
        "retrySchedule": None,
        "retryClientErrors": False,
        "retryJitter": None,
        "timeoutMs": None,
        "maxAge": None,
        "secretReveal": "once",
        "endpointHttpsOnly": True,
        "unknownEventTypes": "allow",
        "schemaValidation": "off",
        "compatHeaders": False,
        "payloadRetentionDays": 90,
    }
    chosen = {
        "retrySchedule": [0.5, 60],
        "retryClientErrors": True,
        "retryJitter": 0.5,
        "timeoutMs": 5000,
        "maxAge": 3600,
        "secretReveal": "always",
        "endpointHttpsOnly": False,
        "unknownEventTypes": "reject",
        "schemaValidation": "enforce",
        "compatHeaders": True,
        "payloadRetentionDays": 7,
    }
    assert (await send(own, "PUT", "/settings", chosen)).json == chosen
    assert await own.get("/settings") == chosen
    for name, value in defaults.items():
        chosen[name] = value
        assert await own.patch("/settings", {name: value}) == chosen
    assert (await send(own, "PUT", "/settings", {})).json == defaults


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retrySchedule", [-1]),
        ("retrySchedule", [1] * 101),
        ("retryClientErrors", "yes"),
        ("secretReveal", "never"),
        ("endpointHttpsOnly", None),
        ("unknownEventTypes", True),
        ("schemaValidation", "on"),
        ("compatHeaders", 1),
        ("payloadRetentionDays", 0),
        ("payloadRetentionDays", 91),
    ],
)
async def test_a_setting_out_of_its_bounds_is_422(own: Client, name: str, value: Any) -> None:
    for method in ("PUT", "PATCH"):
        refused = await send(own, method, "/settings", {name: value})
        assert (refused.status, refused.json["detail"][0]["loc"][:2]) == (422, ["body", name])


async def test_secrets_can_be_read_again_where_the_setting_says_always(own: Client) -> None:
    app = await own.create_application()
    made = await own.post(f"/app/{app}/endpoint", {"url": "https://a.example"})
    path = f"/app/{app}/endpoint/{made['id']}/secret"
    assert (await send(own, "GET", path)).status == 403
    await own.patch("/settings", {"secretReveal": "always"})
    assert (await own.get(path))["key"] == made["secret"]


async def test_endpoints_must_be_https_where_the_setting_says_so(own: Client) -> None:
    app = await own.create_application()
    assert (await send(own, "POST", f"/app/{app}/endpoint", {"url": "ftp://a.example"})).status == 422
    await own.patch("/settings", {"endpointHttpsOnly": False})
    assert (await send(own, "POST", f"/app/{app}/endpoint", {"url": "http://a.example"})).status == 201


async def test_unknown_event_types_are_refused_where_the_setting_says_so(own: Client) -> None:
    app = await own.create_application()
    for name in ("known", "archived"):
        await own.post("/event-type", {"name": name, "description": ""})
    await own.delete("/event-type/archived")
    path = f"/app/{app}/endpoint"
    old = await own.post(path, {"url": "https://a.example", "eventTypes": ["older"]})
    await own.patch("/settings", {"unknownEventTypes": "reject"})
    refused = await send(own, "POST", path, {"url": "https://a.example", "filterTypes": ["known", "unknown"]})
    assert (refused.status, refused.json["detail"][0]["loc"]) == (422, ["body", "eventTypes"])
    assert "unknown" in refused.json["detail"][0]["msg"]
    made = await own.post(path, {"url": "https://a.example", "eventTypes": ["known", "archived"]})
    operational = {"url": "https://a.example", "eventTypes": ["endpoint.disabled"]}
    assert (await send(own, "POST", path, operational)).status == 201, "Hookledger's own types are always there"
    for method in ("PUT", "PATCH"):
        one = {"url": "https://a.example", "eventTypes": ["unknown"]}
        assert (await send(own, method, f"{path}/{made['id']}", one)).status == 422
        # What it named before it may go on naming.
        two = {"url": "https://b.example", "eventTypes": ["older", "known"]}
        assert (await send(own, method, f"{path}/{old['id']}", two)).status == 200
    assert (await send(own, "POST", path, {"url": "https://a.example"})).status == 201


# How long payloads are kept


async def test_payloads_are_erased_after_the_days_that_the_setting_says(
    registry: Registry, own: Client, sql: Sql, pool: Pool
) -> None:
    app = await own.create_application()
    org = await sql.fetchval(
        "SELECT org FROM hookledger.registry_object WHERE id = $1", ids.decode(Prefix.APPLICATION, app)
    )
    place = Place(org=org, app=ids.decode(Prefix.APPLICATION, app))
    endpoint = (await own.post(f"/app/{app}/endpoint", {"url": "https://a.example"}))["id"]
    messages = [await accept(sql, place, b'{"n": 1}') for _ in range(4)]
    await deliver(sql, place, messages[0], ids.decode(Prefix.ENDPOINT, endpoint), [200], response=b"ok")
    await deliver(sql, place, messages[1], ids.decode(Prefix.ENDPOINT, endpoint), [500])  # waits for its retry
    await deliver(sql, place, messages[2], ids.decode(Prefix.ENDPOINT, endpoint), [200], response=b"ok")
    await deliver(sql, place, messages[3], ids.decode(Prefix.ENDPOINT, endpoint), [200])
    await sql.execute("UPDATE projection_1.delivery_state SET resend_at = now() WHERE message = $1", messages[3])
    attempts = f"/app/{app}/attempt/msg/{ids.encode(Prefix.MESSAGE, messages[2])}"
    [attempt] = (await own.get(attempts))["data"]
    await own.delete(f"/app/{app}/msg/{attempt['msgId']}/attempt/{attempt['id']}/content")

    async def left() -> list[bool]:
        found = [await own.get(f"/app/{app}/msg/{ids.encode(Prefix.MESSAGE, message)}") for message in messages]
        return [message["payload"] != {"expired": True} for message in found]

    await own.patch("/settings", {"payloadRetentionDays": 2})
    retention = Retention(pool, at_once=1)
    await retention.sweep(now() + timedelta(days=2) - timedelta(minutes=1))
    assert await left() == [True, True, True, True]
    await retention.sweep(now() + timedelta(days=2))
    assert await left() == [False, True, False, True], "what is still to be sent is kept"
    assert (await own.get(attempts))["data"][0]["response"] == "EXPUNGED"
    assert await sql.fetchval(
        "SELECT count(*) FROM hookledger.attempt_content c JOIN projection_1.delivery_state d USING (delivery)"
        " WHERE d.message = $1",
        messages[0],
    ) == 0  # fmt: skip


@pytest.mark.parametrize("most_open", [1, 100])
async def test_one_delivery_that_is_not_over_does_not_have_everything_after_it_read_again(
    own: Client, sql: Sql, pool: Pool, most_open: int
) -> None:
    app = await own.create_application()
    identity = ids.decode(Prefix.APPLICATION, app)
    org = await sql.fetchval("SELECT org FROM hookledger.registry_object WHERE id = $1", identity)
    place = Place(org=org, app=identity)
    endpoint = ids.decode(Prefix.ENDPOINT, (await own.post(f"/app/{app}/endpoint", {"url": "https://a.example"}))["id"])
    messages = [await accept(sql, place, b"{}") for _ in range(7)]
    for number, message in enumerate(messages):
        await deliver(sql, place, message, endpoint, [500 if number in {1, 4} else 200])
    late, retention = now() + timedelta(days=91), Retention(pool, at_once=2, most_open=most_open)

    async def left() -> list[int]:
        rows = await sql.fetch("SELECT message FROM hookledger.message_body WHERE message = ANY($1)", messages)
        return sorted(messages.index(row["message"]) for row in rows)

    async def read_by(retention: Retention) -> int:
        with capture_logs() as logs:
            await retention.sweep(late)
        return sum(
            entry["read"]
            for entry in logs
            if entry["event"] == "payloads.erased" and entry["app"] == ids.encode(Prefix.APPLICATION, identity)
        )

    async def end(message: UUID) -> None:
        await sql.execute("UPDATE projection_1.delivery_state SET status = 'succeeded' WHERE message = $1", message)

    assert await read_by(retention) == 7
    assert await left() == [1, 4]
    again = {1: 4, 100: 2}[most_open]
    assert await read_by(retention) == again
    assert await read_by(Retention(pool)) == 6, "one that has just begun reads from the first that is not over"
    await end(messages[4])
    assert await read_by(retention) == again
    assert await left() == [1]
    assert await read_by(retention) == 1
    await end(messages[1])
    await retention.sweep(late)
    assert await left() == []
    assert await read_by(retention) == await read_by(Retention(pool)) == 0


# Application tokens


async def test_a_token_opens_its_application_and_the_page_holds_it_in_the_fragment(api: Client) -> None:
    app = await api.create_application()
    access = await api.post(f"/auth/app-portal-access/{app}", {})
    page = urlsplit(access["url"])
    assert (page.path, page.query, page.fragment) == ("/portal/", "", f"token={access['token']}")
    assert access["token"].startswith("hlt_")
    assert (await send(api, "GET", f"/app/{app}", key=access["token"])).json["id"] == app
    older = await api.post(f"/auth/dashboard-access/{app}", {})
    assert older["token"] != access["token"]


async def test_a_link_begins_as_the_caller_reached_the_front_door(api: Client) -> None:
    app = await api.create_application()
    headers = {
        "Authorization": f"Bearer {api.key}",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "hooks.example",
    }
    answer = await api.request("POST", f"/api/v1/auth/app-portal-access/{app}", json={}, headers=headers)
    assert answer.json["url"].startswith("https://hooks.example/portal/#token=hlt_")


async def test_a_token_lives_for_a_week_or_as_long_as_it_is_told(api: Client, sql: Sql) -> None:
    app = await api.create_application()
    identity = ids.decode(Prefix.APPLICATION, app)
    for fields in ({}, {"expiry": 3600}):
        await api.post(f"/auth/app-portal-access/{app}", fields)
    lives = await sql.fetch(
        "SELECT expires_at - created_at AS life FROM hookledger.app_token WHERE app = $1 ORDER BY created_at", identity
    )
    assert [row["life"].total_seconds() for row in lives] == [7 * DAY, 3600]
    for expiry in (3599, 7 * DAY + 1):
        assert (await send(api, "POST", f"/auth/app-portal-access/{app}", {"expiry": expiry})).status == 422
    stored = await sql.fetchval("SELECT string_agg(t::text, '') FROM hookledger.app_token t")
    assert "hlt_" not in stored


async def test_an_expired_token_is_401(api: Client, sql: Sql) -> None:
    app = await api.create_application()
    token = (await api.post(f"/auth/app-portal-access/{app}", {}))["token"]
    await sql.execute(
        "UPDATE hookledger.app_token SET expires_at = clock_timestamp() WHERE app = $1",
        ids.decode(Prefix.APPLICATION, app),
    )
    assert (await send(api, "GET", f"/app/{app}", key=token)).status == 401


async def test_a_new_application_comes_with_its_token(api: Client) -> None:
    path = "/auth/app-portal-access/brought-along"
    assert (await send(api, "POST", path, {})).status == 404
    wrong = await send(api, "POST", path, {"application": {"name": "x", "uid": "another"}})
    assert (wrong.status, wrong.json["detail"][0]["loc"]) == (422, ["body", "application", "uid"])
    access = await api.post(path, {"application": {"name": "brought"}})
    assert (await send(api, "GET", "/app/brought-along", key=access["token"])).json["name"] == "brought"
    await api.post(path, {"application": {"name": "passed over"}})
    assert (await api.get("/app/brought-along"))["name"] == "brought"


async def test_all_tokens_of_an_application_end_together(api: Client) -> None:
    app, other = await api.create_application(), await api.create_application()
    tokens = [(await api.post(f"/auth/app-portal-access/{each}", {}))["token"] for each in (app, app, other)]
    await api.post(f"/auth/app/{app}/expire-all", {"expiry": 60})
    assert [(await send(api, "GET", "/event-type", key=token)).status for token in tokens] == [200, 200, 200]
    await api.post(f"/auth/app/{app}/expire-all", {})
    assert [(await send(api, "GET", "/event-type", key=token)).status for token in tokens] == [401, 401, 200]


async def test_a_token_logs_itself_out_and_a_key_does_not(api: Client) -> None:
    app = await api.create_application()
    tokens = [(await api.post(f"/auth/app-portal-access/{app}", {}))["token"] for _ in range(2)]
    assert (await send(api, "POST", "/auth/logout", key=tokens[0])).status == 204
    assert [(await send(api, "GET", "/event-type", key=token)).status for token in tokens] == [401, 200]
    assert (await send(api, "POST", "/auth/logout")).status == 403


async def test_to_a_token_flagged_event_types_are_there_with_their_flag_only(own: Client) -> None:
    app = await own.create_application()
    await own.post("/event-type", {"name": "plain", "description": ""})
    await own.post("/event-type", {"name": "beta", "description": "", "featureFlag": "beta-users"})
    await own.post("/event-type", {"name": "both", "description": "", "featureFlags": ["beta-users", "staff"]})
    for flags, names in (([], ["plain"]), (["beta-users"], ["beta", "both", "plain"]), (["staff"], ["both", "plain"])):
        token = (await own.post(f"/auth/app-portal-access/{app}", {"featureFlags": flags}))["token"]
        listed = (await send(own, "GET", "/event-type", key=token)).json["data"]
        assert [item["name"] for item in listed] == names
        assert (await send(own, "GET", "/event-type/both", key=token)).status == (200 if flags else 404)
    assert len((await own.get("/event-type"))["data"]) == 3


# The history of changes


async def audit(client: Client, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("/audit", **params))["data"]
    return found


def told(entry: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {".".join(change["path"]): (change["old"], change["new"]) for change in entry["changes"]}


async def test_each_change_says_who_made_it_when_and_what_changed(registry: Registry, own: Client) -> None:
    app = (await own.post("/app", {"name": "a", "uid": "a", "metadata": {"tier": "free"}}))["id"]
    await own.patch("/app/a", {"name": "b", "uid": None, "metadata": {"tier": "gold", "region": "eu"}})
    await own.delete(f"/app/{app}")
    deleted, updated, created = await audit(own, object=app)
    assert [entry["kind"] for entry in (created, updated, deleted)] == [
        "ApplicationCreated",
        "ApplicationUpdated",
        "ApplicationDeleted",
    ]
    assert told(created) == {"name": (None, "a"), "uid": (None, "a"), "metadata": (None, {"tier": "free"})}
    assert told(updated) == {
        "name": ("a", "b"),
        "uid": ("a", None),
        "metadata.tier": ("free", "gold"),
        "metadata.region": (None, "eu"),
    }
    assert told(deleted) == {}
    (key,) = (await own.get("/key"))["data"]
    for version, entry in enumerate((created, updated, deleted), start=1):
        assert (entry["objectId"], entry["appId"], entry["version"]) == (app, app, version)
        assert entry["actor"] == {"type": "key", "id": key["id"]}
        assert abs(moment(entry["at"]) - now()) < timedelta(seconds=60)
    assert [created["registryVersion"] + 2, updated["registryVersion"] + 1] == [deleted["registryVersion"]] * 2
    organisation = (await audit(own, kind="OrganisationCreated"))[0]
    assert organisation["actor"] == {"type": "operator", "id": None}


async def test_the_history_shows_secrets_as_fingerprints_and_no_hash(own: Client) -> None:
    app = await own.create_application()
    made = await own.post(f"/app/{app}/endpoint", {"url": "https://a.example"})
    await own.request("POST", f"/api/v1/app/{app}/endpoint/{made['id']}/secret/rotate", json={})
    key = await own.post("/key", {"scopes": ["read"]})
    await own.post(f"/key/{key['id']}/rotate", {})
    token = (await own.post(f"/auth/app-portal-access/{app}", {}))["token"]
    answer = await send(own, "GET", "/audit?limit=250")
    entries = {entry["kind"]: entry for entry in answer.json["data"]}
    old, new = told(entries["EndpointSecretRotated"])["keys"]
    assert (len(old), len(new), old[0]["fingerprint"]) == (1, 2, new[1]["fingerprint"])
    assert set(new[1]) == {"fingerprint", "expiresAt"}
    assert "expiresAt" in told(entries["ApiKeyUpdated"])
    assert any(told(entry).get("replaces") == (None, key["id"]) for entry in answer.json["data"])
    assert set(told(entries["AppTokenIssued"])) == {"capabilities", "expiresAt", "featureFlags"}
    for secret in (made["secret"], made["secret"].removeprefix("whsec_"), key["key"], token):
        assert secret.encode() not in answer.body
    assert b'"hash"' not in answer.body


async def test_what_a_token_does_is_told_of_the_token(own: Client) -> None:
    app = await own.create_application()
    token = (await own.post(f"/auth/app-portal-access/{app}", {}))["token"]
    await send(own, "POST", f"/app/{app}/endpoint", {"url": "https://a.example"}, key=token)
    await send(own, "POST", "/auth/logout", key=token)
    await own.post(f"/auth/app/{app}/expire-all", {})
    ended, revoked, created, issued, _ = await audit(own, app=app)
    assert [entry["kind"] for entry in (issued, created, revoked, ended)] == [
        "AppTokenIssued",
        "EndpointCreated",
        "AppTokenRevoked",
        "AppTokensRevoked",
    ]
    assert issued["actor"]["type"] == ended["actor"]["type"] == "key"
    assert created["actor"] == revoked["actor"] == {"type": "token", "id": issued["objectId"]}
    assert revoked["objectId"] == issued["objectId"]
    assert told(ended)["tokens"] == (None, 0)
    assert len(await audit(own, actor=issued["objectId"])) == 2


async def test_the_history_is_filtered_and_paged(own: Client) -> None:
    apps = [await own.create_application(f"n{number}") for number in range(5)]
    (key,) = (await own.get("/key"))["data"]
    assert [entry["objectId"] for entry in await audit(own, kind="ApplicationCreated")] == apps[::-1]
    assert len(await audit(own, kind="ApplicationCreated,OrganisationCreated")) == 6
    assert len(await audit(own, actor=key["id"])) == 5
    assert {entry["kind"] for entry in await audit(own, actor="operator")} == {"OrganisationCreated", "ApiKeyCreated"}
    times = [entry["at"] for entry in await audit(own, kind="ApplicationCreated")]
    assert len(await audit(own, after=times[2], kind="ApplicationCreated")) == 2
    assert len(await audit(own, before=times[2], kind="ApplicationCreated")) == 2
    first = await own.get("/audit", limit="3")
    second = await own.get("/audit", limit="3", iterator=first["iterator"])
    back = await own.get("/audit", limit="3", iterator=second["prevIterator"])
    assert [entry["objectId"] for entry in first["data"] + second["data"]][:5] == apps[::-1]
    assert back["data"] == first["data"]
    assert (first["done"], (await own.get("/audit", limit="7"))["done"]) == (False, True)
    rising = await own.get("/audit", order="ascending", limit="1")
    assert rising["data"][0]["kind"] == "OrganisationCreated"


@pytest.mark.parametrize(
    "query", ["object=x", "object=app_x", "actor=me", "kind=Nothing", "before=now", "iterator=chg_x", "iterator=app_1"]
)
async def test_a_filter_that_cannot_be_is_422(own: Client, query: str) -> None:
    assert (await send(own, "GET", f"/audit?{query}")).status == 422


async def test_another_organisation_sees_nothing_of_it(own: Client, api: Client) -> None:
    app = await api.create_application()
    assert await audit(own, object=app) == []
    assert await audit(own, app=app) == []
    assert len(await audit(api, object=app)) == 1


# An endpoint as it was


async def test_an_endpoint_can_be_read_as_of_each_version_and_time_also_after_its_end(own: Client) -> None:
    app = await own.create_application()
    path = f"/app/{app}/endpoint"
    endpoint = (await own.post(path, {"url": "https://one.example", "uid": "e"}))["id"]
    await own.patch(f"{path}/e", {"url": "https://two.example", "channels": ["c"]})
    await own.delete(f"{path}/{endpoint}")
    versions = [await own.get(f"{path}/{endpoint}/config", version=str(version)) for version in (1, 2, 3)]
    assert [each["endpoint"]["url"] for each in versions] == ["https://one.example/", *["https://two.example/"] * 2]
    assert [each["deleted"] for each in versions] == [False, False, True]
    assert [each["version"] for each in versions] == [1, 2, 3]
    assert versions[1]["endpoint"]["channels"] == ["c"]
    assert versions[0]["actor"]["type"] == "key"
    for each in versions:
        assert await own.get(f"{path}/{endpoint}/config", at=each["at"]) == each
    assert await own.get(f"{path}/{endpoint}/config") == versions[2]
    before = (moment(versions[0]["at"]) - timedelta(seconds=1)).isoformat()
    for query, status in ((f"at={before}", 404), ("version=4", 404), ("version=0", 422), ("version=1&at=x", 422)):
        answer = await send(own, "GET", f"{path}/{endpoint}/config?{query.replace('+', '%2B')}")
        assert answer.status == status, query
    other = await own.create_application()
    assert (await send(own, "GET", f"/app/{other}/endpoint/{endpoint}/config")).status == 404
