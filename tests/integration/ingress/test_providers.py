"""`/in/{source}` for each provider: what it sends is accepted, answered as it expects, and forgeries all alike."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.common.contracts.registry import VerificationDocument
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.runtime.clock import now
from tests.integration.ingress.stand import Stand, Tenant
from tests.support import signing
from tests.support.client import Answer, Client
from tests.support.signing import FORM, JSON

ACME = VerificationDocument(
    header="X-Acme-Signature",
    prefix="sha512=",
    algorithm=signing.VERIFICATION.algorithm,
    template="{id}:{timestamp}:{body}",
    timestamp_header="X-Acme-Time",
    event_type_header="X-Acme-Event",
    event_id_header="X-Acme-Id",
)
TOKEN = VerificationDocument(header="X-Token", event_type="alert", event_id_field="id")
PUBLIC_URL = "https://hooks.example.com"


async def send(client: Client, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    return await client.request("POST", path, data=body, headers={"Authorization": "", **headers})


async def source(stand: Stand, tenant: Tenant, provider: str, secret: str, **settings: Any) -> str:
    made = await stand.create_source(tenant.org, tenant.app, provider, secret, **settings)
    return f"/in/{ids.encode(Prefix.SOURCE, made)}"


async def messages(stand: Stand, path: str) -> list[dict[str, Any]]:
    rows = await stand.observer.fetch(
        "SELECT event_type, content_type FROM hookledger.message WHERE source = $1",
        ids.decode(Prefix.SOURCE, path.removeprefix("/in/")),
    )
    return [dict(row) for row in rows]


def signed(provider: str, path: str, at: datetime) -> tuple[str, bytes, dict[str, str], str]:
    """Secret, body, headers and query of one request."""
    secret, body = "s3cret:open", b'{"type":"order.paid","id":"evt_1","object_kind":"push"}'
    match provider:
        case "gitlab":
            headers = signing.gitlab(body, secret, at) | {"Idempotency-Key": "i-1"}
        case "slack":
            body = b'{"type":"event_callback","event_id":"Ev1","event_time":1515449522,"event":{"type":"app_mention"}}'
            headers = signing.slack(body, secret, at)
        case "shopify":
            headers = signing.shopify(body, secret, at)
        case "twilio":
            query = signing.twilio_query(body)
            headers = signing.twilio_json(body, secret, PUBLIC_URL + path + query)
            return secret, body, headers | JSON | {"I-Twilio-Idempotency-Token": "t-1"}, query
        case "standard-webhooks":
            secret, headers = signing.PUBLIC_KEY, signing.asymmetric(body, at)
        case "hmac":
            headers = signing.acme(body, secret, at)
        case "token":
            headers = {"X-Token": secret}
        case _:
            headers = {"Authorization": "Basic czNjcmV0Om9wZW4="}
    return secret, body, headers | JSON, ""


SETTINGS: dict[str, dict[str, Any]] = {
    "hmac": {"verification": ACME},
    "token": {"verification": TOKEN},
    "basic": {"verification": VerificationDocument(event_id_field="id")},
    "twilio": {"public_url": PUBLIC_URL},
}
EVENT_TYPES = {
    "gitlab": "push",
    "slack": "app_mention",
    "shopify": "orders.create",
    "twilio": "order.paid",
    "standard-webhooks": "order.paid",
    "hmac": "order.paid",
    "token": "alert",
    "basic": "order.paid",
}
STATUSES = {"slack": 200, "twilio": 204}


@pytest.mark.parametrize("provider", EVENT_TYPES)
async def test_what_a_provider_sends_is_accepted_once_and_answered_as_it_expects(
    client: Client, stand: Stand, tenant: Tenant, provider: str
) -> None:
    secret = signed(provider, "", now())[0]
    path = await source(stand, tenant, provider, secret, **SETTINGS.get(provider, {}))
    _, body, headers, query = signed(provider, path, now())
    first = await send(client, path + query, body, headers)
    assert first.status == STATUSES.get(provider, 202)
    assert "Idempotent-Replayed" not in first.headers
    second = await send(client, path + query, body, headers)
    assert (second.status, second.body) == (first.status, first.body)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert [row["event_type"] for row in await messages(stand, path)] == [EVENT_TYPES[provider]]


async def test_every_providers_refusal_is_the_same(client: Client, stand: Stand, tenant: Tenant) -> None:
    answers = []
    for provider in EVENT_TYPES:
        secret = signed(provider, "", now())[0]
        path = await source(stand, tenant, provider, secret, **SETTINGS.get(provider, {}))
        _, body, headers, query = signed(provider, path, now())
        forged = {name: value.replace("s3cret", "secret").replace("czNj", "c3Nj") for name, value in headers.items()}
        answers += [
            await send(client, path + query, body, JSON),
            await send(client, path + query, body + b" ", forged),
        ]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.body for answer in answers}) == 1


@pytest.mark.parametrize("provider", ["slack", "hmac", "standard-webhooks"])
async def test_a_signed_time_too_far_from_now_is_400(
    client: Client, stand: Stand, tenant: Tenant, provider: str
) -> None:
    secret, body, headers, _ = signed(provider, "", datetime(2026, 1, 1, tzinfo=UTC))
    path = await source(stand, tenant, provider, secret, **SETTINGS.get(provider, {}))
    assert (await send(client, path, body, headers)).status == 400


# Forms


async def test_twilio_may_send_a_form_and_gets_nothing_that_it_could_run(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    path = await source(stand, tenant, "twilio", "12345")
    body = b"MessageSid=SM1&SmsStatus=received&Body=a%20b%2Bc&From=%2B12349013030"
    # Without a public URL it is the request's host that must be signed.
    headers = signing.twilio_form(body, "12345", f"https://127.0.0.1{path}") | FORM | {"Host": "127.0.0.1"}
    answer = await send(client, path, body, headers)
    assert (answer.status, answer.body) == (204, b"")
    assert await messages(stand, path) == [{"event_type": "message.received", "content_type": FORM["Content-Type"]}]


async def test_a_slash_command_gets_nothing_that_slack_would_show(client: Client, stand: Stand, tenant: Tenant) -> None:
    path = await source(stand, tenant, "slack", "s3cret")
    body = b"command=%2Fweather&text=94070"
    answer = await send(client, path, body, signing.slack(body, "s3cret", now()) | FORM)
    assert (answer.status, answer.body) == (200, b"")
    assert [row["event_type"] for row in await messages(stand, path)] == ["slash_command"]


# Handshakes


async def test_slacks_handshake_is_answered_if_it_is_signed_and_is_no_message(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    path = await source(stand, tenant, "slack", "s3cret")
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aBm2rZgRNFdxV"}).encode()
    answer = await send(client, path, body, signing.slack(body, "s3cret", now()) | JSON)
    assert (answer.status, answer.body) == (200, b"3eZbrw1aBm2rZgRNFdxV")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert (await send(client, path, body, signing.slack(body, "other", now()) | JSON)).status == 401
    assert await messages(stand, path) == []


async def test_a_challenge_by_get_is_given_back_where_the_source_says_so(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    verification = VerificationDocument(
        header="X-Hub-Signature-256", prefix="sha256=", challenge_parameter="hub.challenge"
    )
    path = await source(stand, tenant, "hmac", "s3cret", verification=verification)
    query = "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock"
    answer = await client.request("GET", path + query)
    assert (answer.status, answer.body) == (200, b"1158201444")
    assert answer.headers["Content-Type"].startswith("text/plain")
    for bad in ("", "?hub.challenge=", "?hub.challenge=%3Cb%3E%0A", "?hub.challenge=1&hub.challenge=2"):
        assert (await client.request("GET", path + bad)).status == 400
    assert (await client.request("PUT", path)).headers["Allow"] == "GET,POST"
    assert (await client.request("GET", "/in/src_unknown" + query)).status == 404


# Rotation


async def test_while_a_secret_rotates_both_verify_and_afterwards_one(
    client: Client, stand: Stand, tenant: Tenant
) -> None:
    path = await source(stand, tenant, "slack", "first")
    identity = ids.decode(Prefix.SOURCE, path.removeprefix("/in/"))
    body = b'{"type":"event_callback","event":{"type":"message"}}'

    async def status(secret: str) -> int:
        return (await send(client, path, body, signing.slack(body, secret, now()) | JSON)).status

    await stand.rotate_source(identity, "second", old_until=now() + timedelta(hours=1))
    assert (await status("second"), await status("first"), await status("other")) == (200, 200, 401)
    await stand.rotate_source(identity, "third", old_until=now())
    assert (await status("third"), await status("second"), await status("first")) == (200, 401, 401)


# What is kept of a refused one


async def test_a_refused_one_is_kept_with_what_judges_it_again_and_without_its_token(
    client: Client, stand: Stand
) -> None:
    tenant = await stand.create_tenant()
    twilio = await source(stand, tenant, "twilio", "12345")
    await send(client, twilio + "?a=b", b"A=1", {"X-Twilio-Signature": "x", **FORM})
    token = await source(stand, tenant, "token", "s3cret", verification=TOKEN)
    await send(client, token, b"{}", {"X-Token": "sesame", **JSON})
    gitlab = await source(stand, tenant, "gitlab", "s3cret")
    await send(client, gitlab, b"{}", {"X-Gitlab-Token": "sesame", "X-Gitlab-Event": "Push Hook", **JSON})
    rows = [json.loads(row["headers"]) for row in await stand.rejected(tenant, 3)]
    assert any(row.get(":path") == [f"{twilio}?a=b"] and row["x-twilio-signature"] == ["x"] for row in rows)
    assert any(row.get("x-gitlab-event") == ["Push Hook"] for row in rows)
    assert "sesame" not in json.dumps(rows)
