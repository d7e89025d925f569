"""What the portal admits and refuses, asked without a browser. What people see is in tests/browser."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from services.registry.portal.routes import ACTIONS, PAGES
from services.registry.portal.visits import COOKIE
from tests.integration.registry.conftest import Registry
from tests.support.client import Answer, Client, connected

RUBBISH = {
    "no JSON": b"{",
    "no object": b"[]",
    "no token": b"{}",
    "a number": b'{"token": 7}',
    "no UTF-8": b'{"token": "\xff"}',
    "half a character": b'{"token": "\\ud800"}',
}


class Visitor:
    """Who is signed in with a token, and asks as the portal's own pages do."""

    def __init__(self, client: Client, token: str) -> None:
        self._client = client
        self._headers = {"Authorization": "", "Cookie": f"{COOKIE}={token}", "Origin": client.url}

    async def get(self, path: str, **headers: str) -> Answer:
        return await self._client.request("GET", f"/portal{path}", headers=self._headers | headers)

    async def post(self, path: str, data: bytes = b"", **headers: str) -> Answer:
        return await self._client.request("POST", f"/portal{path}", data=data, headers=self._headers | headers)


@pytest.fixture
async def anyone(registry: Registry) -> AsyncIterator[Client]:
    async with connected(registry.url, "") as client:
        yield client


@pytest.fixture
async def app(api: Client) -> str:
    return await api.create_application("Shop")


async def visitor(api: Client, anyone: Client, app: str, **grant: Any) -> Visitor:
    return Visitor(anyone, (await api.post(f"/auth/app-portal-access/{app}", grant))["token"])


def filled(path: str, names: Mapping[str, str]) -> str:
    """A route's path with these ids in it."""
    for name, value in names.items():
        begin, pattern, rest = path.partition("{" + name + ":")
        path = begin + value + rest.partition("}")[2] if pattern else path
    assert "{" not in path
    return path


async def ids_in(api: Client, app: str) -> dict[str, str]:
    """An endpoint of the application, and a message and a delivery that nobody has."""
    endpoint = await api.create_endpoint(app, "http://localhost/hooks")
    return {"endpoint": endpoint.id, "delivery": "dlv_" + "1" * 22, "message": "msg_" + "1" * 22}


def assert_page(answer: Answer, status: int) -> None:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")


async def test_every_answer_forbids_scripts_from_elsewhere_and_is_kept_nowhere(
    api: Client, anyone: Client, app: str
) -> None:
    visit = await visitor(api, anyone, app)
    answers = [await visit.get(path) for path in ("/", "/endpoints", "/endpoints/ep_x", "/nowhere", "/static/none")]
    answers += [await visit.post("/endpoints/new", Origin="https://elsewhere.example")]
    for answer in answers:
        assert "script-src 'self';" in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        if b"<!doctype" in answer.body:
            assert b"<style" not in answer.body
            assert b" style=" not in answer.body
            assert b"<script>" not in answer.body
    assert {answer.headers["Cache-Control"] for answer in answers[:4]} == {"no-store"}


async def test_signed_out_every_page_and_action_is_401(anyone: Client, registry: Registry, api: Client) -> None:
    names = await ids_in(api, await api.create_application())
    for token in ("", "hlt_unknown", registry.key, '"a\\012b"'):
        visit = Visitor(anyone, token)
        for path in PAGES:
            assert_page(await visit.get(filled(path, names)), 401)
        for path in ACTIONS:
            assert_page(await visit.post(filled(path, names)), 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": "https://elsewhere.example"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=["none", "null", "rubbish", "elsewhere", "a neighbour"],
)
async def test_what_no_page_of_ours_sent_changes_nothing(
    api: Client, anyone: Client, app: str, headers: dict[str, str]
) -> None:
    names = await ids_in(api, app)
    before = await api.get(f"/app/{app}/endpoint/{names['endpoint']}")
    visit = await visitor(api, anyone, app)
    for path in (*ACTIONS, "/session", "/sign-out"):
        assert_page(await visit.post(filled(path, names), b"url=http://localhost/other", **headers), 403)
    assert await api.get(f"/app/{app}/endpoint/{names['endpoint']}") == before
    assert len((await api.get(f"/app/{app}/endpoint"))["data"]) == 1
    assert (await visit.get("/endpoints")).status == 200


async def test_another_application_is_not_there(api: Client, anyone: Client, app: str) -> None:
    other = await api.create_application()
    names = await ids_in(api, other)
    before = await api.get(f"/app/{other}/endpoint/{names['endpoint']}")
    visit = await visitor(api, anyone, app)
    for path in PAGES:
        if "{" in path:
            assert_page(await visit.get(filled(path, names)), 404)
    for path in ACTIONS:
        if "{" in path:
            answer = await visit.post(filled(path, names), b"url=http://localhost/other&eventType=svix.ping")
            assert_page(answer, 404)
    assert await api.get(f"/app/{other}/endpoint/{names['endpoint']}") == before


async def test_a_token_does_what_its_capabilities_allow(api: Client, anyone: Client, app: str) -> None:
    names = await ids_in(api, app)
    before = await api.get(f"/app/{app}/endpoint/{names['endpoint']}")
    place = f"/endpoints/{names['endpoint']}"
    reader = await visitor(api, anyone, app, readOnly=True)
    for path in ACTIONS:
        if path.startswith("/endpoints"):
            answer = await reader.post(filled(path, names), b"url=http://localhost/other&eventType=svix.ping")
            assert answer.status in {403, 422}, path
    assert (await reader.get(f"{place}/secret")).status == 403
    assert await api.get(f"/app/{app}/endpoint/{names['endpoint']}") == before
    assert (await reader.get(place)).body.count(b"<form") == 1  # to sign out

    sender = await visitor(api, anyone, app, capabilities=["ViewBase", "CreateAttempts"])
    shown = (await sender.get(place)).body
    assert b"Send example" in shown
    assert b"/edit" not in shown
    assert (await sender.post(f"{place}/test", b"eventType=svix.ping")).status == 303
    assert (await sender.post(f"{place}/disable")).status == 403

    keeper = await visitor(api, anyone, app, capabilities=["ViewBase", "ViewEndpointSecret"])
    assert b"whsec_" in (await keeper.get(f"{place}/secret")).body


@pytest.mark.parametrize("body", RUBBISH.values(), ids=RUBBISH.keys())
async def test_rubbish_does_not_sign_in(api: Client, anyone: Client, app: str, body: bytes) -> None:
    visit = await visitor(api, anyone, app)
    assert (await visit.post("/session", body)).status in {401, 422}


async def test_an_api_key_does_not_sign_in(registry: Registry, anyone: Client) -> None:
    answer = await Visitor(anyone, "").post("/session", b'{"token": "%s"}' % registry.key.encode())
    assert (answer.status, "Set-Cookie" in answer.headers) == (403, False)


async def test_the_cookie_is_for_https_where_the_visitor_came_by_it(api: Client, anyone: Client, app: str) -> None:
    token = (await api.post(f"/auth/app-portal-access/{app}", {}))["token"]
    body = b'{"token": "%s"}' % token.encode()
    by_http = await Visitor(anyone, "").post("/session", body)
    by_https = await Visitor(anyone, "").post("/session", body, **{"X-Forwarded-Proto": "https"})
    for answer in (by_http, by_https):
        assert {"HttpOnly", "SameSite=Strict", "Path=/portal"} <= set(answer.headers["Set-Cookie"].split("; "))
    assert "Secure" not in by_http.headers["Set-Cookie"]
    assert "Secure" in by_https.headers["Set-Cookie"]


async def test_rubbish_in_forms_and_addresses_is_refused_in_words(api: Client, anyone: Client, app: str) -> None:
    place = f"/endpoints/{(await ids_in(api, app))['endpoint']}"
    visit = await visitor(api, anyone, app)
    for data in (b"", b"url=%00", b"url=%ff", b"url=x&eventTypes=%00", b"url=http://localhost&channels=" + b"x" * 200):
        assert_page(await visit.post("/endpoints/new", data), 422)
        assert_page(await visit.post(f"{place}/edit", data), 422)
    assert_page(await visit.post("/endpoints/new", b"&".join(b"a=1" for _ in range(1001))), 422)
    assert_page(await visit.post("/endpoints/new", b"url=" + b"x" * 1024 * 1024), 413)
    assert_page(await visit.post(f"{place}/test", b"eventType=nothing"), 422)
    charset = {"Content-Type": "application/x-www-form-urlencoded; charset=klingon"}
    assert (await visit.post(f"{place}/edit", b"url=http://localhost/2", **charset)).status == 303
    for path in ("/endpoints?iterator=x", "/messages?iterator=%00", f"{place}?iterator=-x"):
        assert_page(await visit.get(path), 422)
    for path in (f"{place}?state=nothing", f"{place}?done=nothing"):
        assert_page(await visit.get(path), 200)
    for path in ("/endpoints/..%2f..%2fapp", "/endpoints/ep_", "/endpoints/%00", "/static/../routes.py", "/x"):
        assert_page(await visit.get(path), 404)
    assert_page(await visit.get("/session"), 405)


async def test_an_address_without_its_slash_leads_to_the_door(anyone: Client) -> None:
    answer = await anyone.request("GET", "/portal", headers={"Authorization": ""})
    assert (answer.status, answer.headers["Location"]) == (308, "/portal/")


async def test_two_clicks_are_one_order(api: Client, anyone: Client, app: str) -> None:
    visit = await visitor(api, anyone, app)
    form = b"once=0123456789abcdef&url=http://localhost/once"
    answers = [await visit.post("/endpoints/new", form) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 200]
    assert len((await api.get(f"/app/{app}/endpoint"))["data"]) == 1
