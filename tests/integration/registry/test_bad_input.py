"""What cannot be used is refused with a 4xx whose detail says what to mend; never a 5xx."""

from typing import Any

import pytest

from tests.support.client import Client

DEEP = b'{"name": "x", "metadata": ' + b'{"a":' * 100 + b"1" + b"}" * 100 + b"}"
LONE_SURROGATE = b'{"name": "\\ud800"}'

BAD_BODIES: dict[str, bytes] = {
    "empty": b"",
    "rubbish": b"{name: x}",
    "cut short": b'{"name": "x"',
    "not an object": b'["name"]',
    "null": b"null",
    "without its required field": b"{}",
    "wrong type": b'{"name": 7}',
    "wrong type inside": b'{"name": "x", "metadata": {"a": 1}}',
    "empty text": b'{"name": ""}',
    "over-long text": b'{"name": "' + b"x" * 300 + b'"}',
    "over-long uid": b'{"name": "x", "uid": "' + b"u" * 257 + b'"}',
    "uid with a blank": b'{"name": "x", "uid": "a b"}',
    "uid with a line feed at its end": b'{"name": "x", "uid": "ab\\n"}',
    "NUL": b'{"name": "a\\u0000b"}',
    "NUL in a key": b'{"name": "x", "metadata": {"a\\u0000": "b"}}',
    "raw NUL": b'{"name": "a\x00b"}',
    "lone surrogate": LONE_SURROGATE,
    "not UTF-8": b'{"name": "\xff"}',
    "NaN": b'{"name": "x", "throttleRate": NaN}',
    "number out of bounds": b'{"name": "x", "throttleRate": 0}',
    "number too large": b'{"name": "x", "throttleRate": 99999999999999999999999999}',
    "nested too deep": DEEP,
    "the same key twice": b'{"name": "x", "name": "y"}',
    "too much metadata": b'{"name": "x", "metadata": {'
    + b", ".join(b'"k%d": "%s"' % (n, b"v" * 4000) for n in range(5))
    + b"}}",
}

BAD_ENDPOINTS: dict[str, dict[str, Any]] = {
    "no URL": {},
    "URL that is none": {"url": "not a url"},
    "URL of another scheme": {"url": "ftp://example.com/"},
    "URL with a password": {"url": "http://user:pass@example.com/"},
    "URL with a fragment": {"url": "http://example.com/#x"},
    "URL too long": {"url": "http://example.com/" + "x" * 3000},
    "no event types": {"url": "http://example.com", "eventTypes": []},
    "an event type that is no name": {"url": "http://example.com", "eventTypes": ["a b"]},
    "too many channels": {"url": "http://example.com", "channels": [f"c{n}" for n in range(11)]},
    "a secret that is none": {"url": "http://example.com", "secret": "whsec_short"},
    "a timeout under a second": {"url": "http://example.com", "timeoutMs": 10},
    "a timeout over half a minute": {"url": "http://example.com", "timeoutMs": 31_000},
    "a negative wait": {"url": "http://example.com", "retrySchedule": [-1]},
    "a wait that is no number": {"url": "http://example.com", "retrySchedule": ["1"]},
    "a schedule that has no such name": {"url": "http://example.com", "retrySchedule": "slow"},
    "an exponential schedule without an end": {"url": "http://example.com", "retrySchedule": {"initial": 1}},
    "an exponential schedule that shrinks": {
        "url": "http://example.com",
        "retrySchedule": {"initial": 1, "factor": 0.5, "retries": 3},
    },
    "more jitter than there is": {"url": "http://example.com", "retryJitter": 1.1},
    "an age under a minute": {"url": "http://example.com", "maxAge": 59},
    "an age over thirty days": {"url": "http://example.com", "maxAge": 2_592_001},
    "an unknown end": {"url": "http://example.com", "onExhausted": "explode"},
    "an unknown profile": {"url": "http://example.com", "profile": "other"},
}

BAD_SOURCES: dict[str, dict[str, Any]] = {
    "no provider": {"name": "s", "secret": "x"},
    "unknown provider": {"name": "s", "provider": "other", "secret": "x"},
    "no secret": {"name": "s", "provider": "stripe"},
    "an API key in place of the secret": {"name": "s", "provider": "stripe", "secret": "sk_live_1234567890"},
    "an empty secret": {"name": "s", "provider": "github", "secret": ""},
    "no such secret": {"name": "s", "provider": "standard-webhooks", "secret": "short"},
}

BAD_EVENT_TYPES: dict[str, bytes] = {
    "no description": b'{"name": "a"}',
    "a name that is none": b'{"name": "a/b", "description": ""}',
    "a schema that is no object": b'{"name": "a", "description": "", "schemas": {"1": 7}}',
    "a number that no database holds": b'{"name": "a", "description": "", "schemas": {"1": {"maximum": 1e999999}}}',
}

BAD_QUERIES = {
    "/app?limit=0": "limit",
    "/app?limit=251": "limit",
    "/app?limit=x": "limit",
    "/app?limit=-1": "limit",
    "/app?limit=99999999999999999999": "limit",
    "/app?iterator=rubbish": "iterator",
    "/app?iterator=ep_0352lAzmkEL4eK7kSlcpIS": "iterator",
    "/app?iterator=app_zzzzzzzzzzzzzzzzzzzzzz": "iterator",
    "/app?iterator=%00": "iterator",
    "/app?order=sideways": "order",
    "/event-type?iterator=a%20b": "iterator",
    "/event-type?include_archived=perhaps": "include_archived",
    "/app/{app}/msg?before=yesterday": "before",
    "/app/{app}/msg?after=2026-02-30T00:00:00Z": "after",
    "/app/{app}/msg?after=0001-01-01T00:00:00%2B14:00": "after",
    "/app/{app}/msg?with_content=maybe": "with_content",
    "/app/{app}/delivery?status=odd": "status",
    "/app/{app}/delivery?messageId=x": "messageId",
}

UNKNOWN_PATHS = [
    "/app/unknown",
    "/app/app_0352lAzmkEL4eK7kSlcpIS",
    "/app/app_%00",
    "/app/%00",
    "/app/%FF",
    "/app/" + "x" * 5000,
    "/app/{app}/endpoint/unknown",
    "/app/{app}/endpoint/{app}",
    "/app/{app}/endpoint/unknown/secret",
    "/app/{app}/endpoint/unknown/msg",
    "/app/{app}/source/unknown",
    "/app/{app}/msg/unknown",
    "/app/{app}/msg/msg_0352lAzmkEL4eK7kSlcpIS",
    "/app/{app}/msg/unknown/endpoint",
    "/app/{app}/msg/unknown/attempt/unknown",
    "/app/{app}/attempt/endpoint/unknown",
    "/app/{app}/attempt/msg/unknown",
    "/app/{app}/delivery/unknown",
    "/app/{app}/delivery/dlv_0352lAzmkEL4eK7kSlcpIS/ledger",
    "/app/unknown/rejected",
    "/event-type/unknown",
    "/event-type/a%2Fb",
    "/nowhere",
]


@pytest.fixture
async def app(api: Client) -> str:
    return await api.create_application()


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_body_that_cannot_be_read_is_422(api: Client, app: str, method: str, body: bytes) -> None:
    if method == "PATCH" and body == b"{}":
        pytest.skip("a patch of nothing is a patch")
    answer = await api.request(method, "/api/v1/app" if method == "POST" else f"/api/v1/app/{app}", data=body)
    assert answer.status == 422, answer.body
    assert answer.json["code"] == "validation"
    (item,) = answer.json["detail"]
    assert item["loc"][0] == "body"
    assert set(item) == {"loc", "msg", "type"}
    assert item["msg"]


@pytest.mark.parametrize("body", BAD_ENDPOINTS.values(), ids=BAD_ENDPOINTS.keys())
async def test_an_endpoint_that_cannot_be_is_422(api: Client, app: str, body: dict[str, Any]) -> None:
    answer = await api.request("POST", f"/api/v1/app/{app}/endpoint", json=body)
    assert answer.status == 422, answer.body


async def test_what_is_wrong_is_named_by_its_place(api: Client, app: str) -> None:
    body = {"url": "http://example.com", "channels": ["good", "not good"]}
    answer = await api.request("POST", f"/api/v1/app/{app}/endpoint", json=body)
    assert answer.json["detail"][0]["loc"] == ["body", "channels", 1]


@pytest.mark.parametrize("body", BAD_SOURCES.values(), ids=BAD_SOURCES.keys())
async def test_a_source_that_cannot_be_is_422(api: Client, app: str, body: dict[str, Any]) -> None:
    answer = await api.request("POST", f"/api/v1/app/{app}/source", json=body)
    assert answer.status == 422, answer.body
    assert "1234567890" not in answer.body.decode()


@pytest.mark.parametrize("body", BAD_EVENT_TYPES.values(), ids=BAD_EVENT_TYPES.keys())
async def test_an_event_type_that_cannot_be_is_422(api: Client, body: bytes) -> None:
    answer = await api.request("POST", "/api/v1/event-type", data=body)
    assert answer.status == 422, answer.body


@pytest.mark.parametrize(("path", "name"), BAD_QUERIES.items(), ids=BAD_QUERIES.keys())
async def test_a_query_that_cannot_be_read_is_422(api: Client, app: str, path: str, name: str) -> None:
    answer = await api.request("GET", "/api/v1" + path.format(app=app))
    assert answer.status == 422, answer.body
    assert answer.json["detail"][0]["loc"] == ["query", name]


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
async def test_what_is_not_there_is_404_in_the_form_of_the_api(api: Client, app: str, path: str) -> None:
    answer = await api.request("GET", "/api/v1" + path.format(app=app))
    assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert answer.json["detail"]


async def test_a_method_that_a_route_has_not_is_405(api: Client) -> None:
    answer = await api.request("DELETE", "/api/v1/app")
    assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]


async def test_a_body_over_a_megabyte_is_413_and_an_encoded_one_415(api: Client) -> None:
    large = await api.request("POST", "/api/v1/app", data=b'{"name": "' + b"x" * 1024 * 1024 + b'"}')
    assert (large.status, large.json["code"]) == (413, "payload_too_large")
    encoded = await api.request(
        "POST", "/api/v1/app", data=b"x", headers={"Authorization": f"Bearer {api.key}", "Content-Encoding": "gzip"}
    )
    assert (encoded.status, encoded.json["code"]) == (415, "unsupported_media_type")


async def test_a_trailing_slash_changes_nothing(api: Client, app: str) -> None:
    assert (await api.request("GET", f"/api/v1/app/{app}/")).json["id"] == app
    assert (await api.request("POST", "/api/v1/app/", json={"name": "x"})).status == 201


async def test_unknown_fields_are_passed_over(api: Client) -> None:
    answer = await api.request("POST", "/api/v1/app", json={"name": "x", "rateLimit": 3, "unheardOf": {"a": [1]}})
    assert (answer.status, answer.json["throttleRate"], answer.json["rateLimit"]) == (201, 3, 3)


async def test_messages_are_created_at_the_front_door(api: Client, app: str) -> None:
    answer = await api.request("POST", f"/api/v1/app/{app}/msg", json={"eventType": "a", "payload": {}})
    assert answer.status == 405
