"""Filters, transformations and ed25519 keys of endpoints, over HTTP."""

from typing import Any

import pytest

from libs.common.contracts.registry import SecretReveal
from libs.common.domain.signatures import standard
from libs.common.runtime import ed25519
from tests.integration.registry.conftest import Registry
from tests.support.client import Client, connected

URL = "https://example.com/"
SEED = bytes(range(32))
PRIVATE = standard.format_private_key(SEED, ed25519.public_key(SEED))
PUBLIC = standard.format_public_key(ed25519.public_key(SEED))


@pytest.fixture
async def app(api: Client) -> str:
    return await api.create_application()


async def refused(api: Client, method: str, path: str, body: Any) -> dict[str, Any]:
    answer = await api.request(method, f"/api/v1{path}", json=body)
    assert answer.status == 422
    [error] = answer.json["detail"]
    return dict(error)


# Filters


async def test_a_filter_is_kept_changed_and_removed(api: Client, app: str) -> None:
    made = await api.post(f"/app/{app}/endpoint", {"url": URL, "filter": "amount > `100`"})
    path = f"/app/{app}/endpoint/{made['id']}"
    assert (await api.get(path))["filter"] == "amount > `100`"
    assert (await api.patch(path, {"description": "x"}))["filter"] == "amount > `100`"
    assert (await api.patch(path, {"filter": "ok"}))["filter"] == "ok"
    assert (await api.patch(path, {"filter": None}))["filter"] is None


@pytest.mark.parametrize(
    ("expression", "said"), [("amount >", "column 9"), ("nope(@)", "column 1"), ("a" * 3000, "2048"), ("", "1")]
)
async def test_a_filter_that_does_not_parse_is_a_422_with_the_column(
    api: Client, app: str, expression: str, said: str
) -> None:
    error = await refused(api, "POST", f"/app/{app}/endpoint", {"url": URL, "filter": expression})
    assert error["loc"] == ["body", "filter"]
    assert said in error["msg"]


# Transformations


async def test_a_transformation_is_set_tried_switched_off_and_removed(api: Client, app: str) -> None:
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": URL}))["id"]
    path = f"/app/{app}/endpoint/{endpoint}/transformation"
    none = await api.get(path)
    assert (none["expression"], none["enabled"]) == (None, False)

    answer = await api.request("PATCH", f"/api/v1{path}", json={"expression": "{a: b}"})
    assert (answer.status, answer.body) == (204, b"")
    assert await api.post(f"{path}/preview", {"payload": {"b": [1.50]}}) == {"payload": {"a": [1.5]}}
    assert await api.post(f"{path}/preview", {"payload": {"b": 1}, "expression": "b"}) == {"payload": 1}

    await api.request("PATCH", f"/api/v1{path}", json={"enabled": False})
    await api.patch(f"/app/{app}/endpoint/{endpoint}", {"description": "changed otherwise"})
    off = await api.get(path)
    assert (off["expression"], off["enabled"]) == ("{a: b}", False)
    await api.request("PATCH", f"/api/v1{path}", json={"expression": None})
    assert (await api.get(path))["expression"] is None


@pytest.mark.parametrize(
    ("call", "body", "place"),
    [
        ("PATCH", {"expression": "a b"}, "expression"),
        ("PATCH", {"code": "function handler(w) { return w }"}, "code"),
        ("PATCH", {"enabled": True}, "expression"),
        ("POST /preview", {"payload": {}}, "expression"),
        ("POST /preview", {"expression": "a b", "payload": {}}, "expression"),
        ("POST /preview", {"expression": "sum(a)", "payload": {"a": "x"}}, "payload"),
        ("POST /preview", {"expression": "a | " + "[@,@] | " * 40 + "@", "payload": {"a": 1}}, "payload"),
    ],
)
async def test_a_transformation_that_cannot_be_is_a_422_that_says_why(
    api: Client, app: str, call: str, body: Any, place: str
) -> None:
    method, _, tail = call.partition(" ")
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": URL}))["id"]
    error = await refused(api, method, f"/app/{app}/endpoint/{endpoint}/transformation{tail}", body)
    assert error["loc"] == ["body", place]


# Pairs of keys


async def test_of_a_pair_of_keys_only_the_public_one_is_ever_shown(registry: Registry, api: Client, app: str) -> None:
    made = await api.post(f"/app/{app}/endpoint", {"url": URL, "secretType": "ed25519"})
    path = f"/app/{app}/endpoint/{made['id']}/secret"
    assert len(standard.parse_public_key(made["secret"])) == 32
    assert (await api.get(path))["key"] == made["secret"]
    rotated = await api.request("POST", f"/api/v1{path}/rotate", json={})
    assert rotated.status == 204
    new = (await api.get(path))["key"]
    assert standard.is_public_key(new)
    assert new != made["secret"]


async def test_a_public_key_can_be_read_where_secrets_are_shown_once(registry: Registry) -> None:
    key = registry.tenant(secret_reveal=SecretReveal.ONCE)
    async with connected(registry.url, key) as client:
        app = await client.create_application()
        path = f"/app/{app}/endpoint"
        made = await client.post(path, {"url": URL, "secret": PRIVATE})
        assert made["secret"] == PUBLIC
        assert (await client.get(f"{path}/{made['id']}/secret"))["key"] == PUBLIC
        rotated = await client.post(f"{path}/{made['id']}/secret/rotate", {"secretType": "symmetric"})
        assert standard.parse_secret(rotated["key"])
        assert (await client.request("GET", f"/api/v1{path}/{made['id']}/secret")).status == 403


@pytest.mark.parametrize("key", [PRIVATE, PRIVATE.rstrip("="), standard.format_private_key(SEED, b"")])
async def test_a_private_key_of_ones_own_may_be_the_pair_or_its_seed(api: Client, app: str, key: str) -> None:
    endpoint = (await api.post(f"/app/{app}/endpoint", {"url": URL}))["id"]
    await api.request("POST", f"/api/v1/app/{app}/endpoint/{endpoint}/secret/rotate", json={"key": key})
    assert (await api.get(f"/app/{app}/endpoint/{endpoint}/secret"))["key"] == PUBLIC


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"secret": PUBLIC}, "secret"),
        ({"secret": standard.format_private_key(SEED, bytes(32))}, "secret"),
        ({"secret": "whsk_AAAA"}, "secret"),
        ({"secret": PRIVATE, "secretType": "symmetric"}, "secret"),
        ({"secret": standard.format_secret(SEED), "secretType": "ed25519"}, "secret"),
        ({"secret": PRIVATE, "profile": "x-webhook"}, "profile"),
    ],
)
async def test_a_key_that_cannot_sign_is_a_422_that_does_not_repeat_it(
    api: Client, app: str, body: dict[str, str], place: str
) -> None:
    error = await refused(api, "POST", f"/app/{app}/endpoint", {"url": URL} | body)
    assert error["loc"] == ["body", place]
    assert "secret" not in body or body["secret"][5:] not in error["msg"]


async def test_the_simple_form_and_a_pair_of_keys_exclude_one_another_whichever_comes_last(
    api: Client, app: str
) -> None:
    simple = (await api.post(f"/app/{app}/endpoint", {"url": URL, "profile": "x-webhook"}))["id"]
    path = f"/app/{app}/endpoint/{simple}"
    assert (await refused(api, "POST", f"{path}/secret/rotate", {"secretType": "ed25519"}))["loc"] == [
        "body",
        "profile",
    ]
    paired = (await api.post(f"/app/{app}/endpoint", {"url": URL, "secretType": "ed25519"}))["id"]
    for method, body in (("PATCH", {"profile": "x-webhook"}), ("PUT", {"url": URL, "profile": "x-webhook"})):
        assert (await refused(api, method, f"/app/{app}/endpoint/{paired}", body))["loc"] == ["body", "profile"]
