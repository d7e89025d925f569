"""`POST /in/{source}`: what providers get for what they send."""

import asyncio
import hashlib
import json
import time
from urllib.parse import quote

import pytest

from deploy.stack.services import Service
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.ingress.stand import (
    GITHUB_SECRET,
    Stand,
    Tenant,
    github_signed,
    standard_signed,
    stripe_event,
    stripe_signed,
    talk,
)
from tests.support.client import Answer, Client


async def send(client: Client, path: str, body: bytes, headers: dict[str, str]) -> Answer:
    return await client.request("POST", path, data=body, headers={"Authorization": "", **headers})


async def stored(stand: Stand, answer: Answer) -> dict[str, object]:
    row = await stand.observer.fetchrow(
        "SELECT m.*, b.body, b.salt FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id"
        " WHERE m.id = $1",
        ids.decode(Prefix.MESSAGE, answer.json["id"]),
    )
    assert row is not None
    return dict(row)


# What is accepted


async def test_a_stripe_event_is_accepted_with_its_exact_bytes(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = stripe_event("evt_exact", amount=1.0, name="Zoë")
    answer = await send(client, tenant.path_in("stripe"), body, stripe_signed(body))
    assert answer.status == 202
    message = await stored(stand, answer)
    assert message["body"] == body
    assert message["event_type"] == "payment_intent.succeeded"
    assert message["origin"] == "source"
    assert message["source"] == tenant.sources["stripe"]
    assert message["content_type"] == "application/json; charset=utf-8"
    assert message["body_bytes"] == len(body)
    assert message["body_hash"] == hashlib.sha256(bytes(message["salt"]) + body).digest()  # type: ignore[call-overload]


async def test_acceptance_is_a_fact_and_has_an_outbox_row(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = stripe_event("evt_fact")
    answer = await send(client, tenant.path_in("stripe"), body, stripe_signed(body))
    message = await stored(stand, answer)
    fact = await stand.observer.fetchrow("SELECT * FROM hookledger.fact WHERE stream = $1", message["id"])
    assert fact is not None
    assert (fact["version"], fact["kind"], fact["app"]) == (1, "MessageAccepted", tenant.app)
    assert fact["at"] == message["accepted_at"]
    assert json.loads(fact["data"])["registry_version"] == message["registry_version"]
    assert await stand.count("outbox", message=message["id"]) == 1


async def test_a_github_push_is_accepted(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = b'{"ref":"refs/heads/main"}'
    answer = await send(client, tenant.path_in("github"), body, github_signed(body, "d-1"))
    assert answer.status == 202
    assert (await stored(stand, answer))["event_type"] == "push"


async def test_github_may_send_a_form(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = ("payload=" + quote('{"zen":"Keep it logically awesome."}')).encode()
    headers = github_signed(body, "d-form") | {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await send(client, tenant.path_in("github"), body, headers)
    assert answer.status == 202
    message = await stored(stand, answer)
    assert (message["body"], message["content_type"]) == (body, "application/x-www-form-urlencoded")


async def test_a_standard_webhook_is_accepted(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = b'{"type":"user.created","data":{}}'
    answer = await send(client, tenant.path_in("standard-webhooks"), body, standard_signed(body, "msg_standard"))
    assert answer.status == 202
    assert (await stored(stand, answer))["event_type"] == "user.created"


async def test_a_trailing_slash_is_optional(client: Client, tenant: Tenant) -> None:
    body = stripe_event("evt_slash")
    assert (await send(client, tenant.path_in("stripe") + "/", body, stripe_signed(body))).status == 202


# What is not believed


def wrong_signatures(body: bytes) -> dict[str, dict[str, str]]:
    json_type = {"Content-Type": "application/json"}
    good = stripe_signed(body)
    return {
        "missing": json_type,
        "empty": json_type | {"Stripe-Signature": ""},
        "malformed": json_type | {"Stripe-Signature": "nonsense"},
        "not ASCII": json_type | {"Stripe-Signature": "t=1,v1=ü"},
        "by another secret": stripe_signed(body, secret="whsec_other"),
        "of another body": stripe_signed(body + b" "),
        "two timestamps": json_type | {"Stripe-Signature": "t=1," + good["Stripe-Signature"]},
    }


async def test_every_signature_that_is_not_right_gets_the_same_401(client: Client, tenant: Tenant) -> None:
    body = stripe_event("evt_forged")
    answers = {
        name: await send(client, tenant.path_in("stripe"), body, headers)
        for name, headers in wrong_signatures(body).items()
    }
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(answers, 401)
    assert len({answer.body for answer in answers.values()}) == 1


async def test_a_repeated_signature_header_is_refused(ingress: Service, tenant: Tenant) -> None:
    body = stripe_event("evt_twice")
    signature = stripe_signed(body)["Stripe-Signature"]
    request = (
        f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Stripe-Signature: {signature}\r\nStripe-Signature: {signature}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    assert (await talk(ingress.url, request + body)).status == 401


@pytest.mark.parametrize("age", [-301, 301 + 5])
async def test_a_signed_timestamp_too_far_from_now_is_400(client: Client, tenant: Tenant, age: int) -> None:
    body = stripe_event("evt_old")
    headers = stripe_signed(body, at=time.time() - age)
    assert (await send(client, tenant.path_in("stripe"), body, headers)).status == 400


async def test_a_secret_that_was_just_rotated_is_believed_at_once(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = stripe_event("evt_rotated")
    source = await stand.create_source(tenant.org, tenant.app, "stripe", "whsec_first")
    path = f"/in/{ids.encode(Prefix.SOURCE, source)}"
    assert (await send(client, path, body, stripe_signed(body, secret="whsec_second"))).status == 401
    await stand.rotate_source(source, "whsec_second")
    assert (await send(client, path, body, stripe_signed(body, secret="whsec_second"))).status == 202


# What is not taken


async def test_what_is_too_large_is_refused_before_it_is_sent(ingress: Service, tenant: Tenant) -> None:
    request = (
        f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        f"Content-Length: {1024 * 1024 + 1}\r\n\r\n"
    ).encode()
    answer = await talk(ingress.url, request)
    assert answer.status == 413
    assert answer.seconds < 0.9


async def test_a_body_that_is_too_large_is_not_asked_for(ingress: Service, tenant: Tenant) -> None:
    request = (
        f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
        f"Content-Type: application/json\r\nContent-Length: {1024 * 1024 + 1}\r\n\r\n"
    ).encode()
    assert (await talk(ingress.url, request)).status == 413


async def test_what_grows_too_large_while_it_streams_is_413(ingress: Service, tenant: Tenant) -> None:
    head = (
        f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    ).encode()
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    assert (await talk(ingress.url, head, *[chunk] * 17)).status == 413


async def test_a_body_of_exactly_one_mebibyte_is_taken(client: Client, tenant: Tenant) -> None:
    head, tail = b'{"id":"evt_large","type":"large","x":"', b'"}'
    body = head + b"x" * (1024 * 1024 - len(head) - len(tail)) + tail
    assert (await send(client, tenant.path_in("stripe"), body, stripe_signed(body))).status == 202


BAD_JSON = {
    "not JSON": b"{",
    "empty": b"",
    "duplicate keys": b'{"id":"a","id":"b","type":"t"}',
    "two short duplicate keys": b'{"a":1,"a":2}',
    "duplicate keys, one escaped": b'{"id":"a","i\\u0064":"b","type":"t"}',
    "NaN": b'{"id":"a","type":"t","n":NaN}',
    "infinity": b'{"id":"a","type":"t","n":1e999}',
    "nested too deep": b'{"id":"a","type":"t","n":' + b"[" * 64 + b"]" * 64 + b"}",
    "a lone surrogate": b'{"id":"a","type":"t","n":"\\ud800"}',
    "not UTF-8": b'{"id":"a","type":"t","n":"\xff"}',
    "trailing": b'{"id":"a","type":"t"} x',
}


@pytest.mark.parametrize("name", BAD_JSON)
async def test_json_that_two_parsers_could_read_differently_is_400(client: Client, tenant: Tenant, name: str) -> None:
    body = BAD_JSON[name]
    headers = github_signed(body, f"d-{name.replace(' ', '-')}")
    assert (await send(client, tenant.path_in("github"), body, headers)).status == 400


async def test_nesting_of_64_is_taken(client: Client, tenant: Tenant) -> None:
    body = b'{"id":"evt_nested","type":"t","n":' + b"[" * 63 + b"]" * 63 + b"}"
    assert (await send(client, tenant.path_in("stripe"), body, stripe_signed(body))).status == 202


async def test_an_event_without_a_readable_type_is_400(client: Client, tenant: Tenant) -> None:
    body = b'{"id":"evt_untyped"}'
    assert (await send(client, tenant.path_in("stripe"), body, stripe_signed(body))).status == 400


async def test_an_encoded_body_is_415(client: Client, tenant: Tenant) -> None:
    body = stripe_event("evt_encoded")
    headers = stripe_signed(body) | {"Content-Encoding": "gzip"}
    assert (await send(client, tenant.path_in("stripe"), body, headers)).status == 415


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"])
async def test_another_content_type_is_415(client: Client, tenant: Tenant, content_type: str) -> None:
    body = stripe_event("evt_typed")
    headers = stripe_signed(body) | {"Content-Type": content_type}
    assert (await send(client, tenant.path_in("stripe"), body, headers)).status == 415


async def test_headers_that_drip_get_408(ingress: Service, tenant: Tenant) -> None:
    drip: list[bytes | float] = [b"POST "]
    for letter in tenant.path_in("stripe"):
        drip += [0.2, letter.encode()]
    answer = await talk(ingress.url, *drip)
    assert answer.status == 408
    assert 0.9 < answer.seconds < 2.5
    assert '"code":"request_timeout"' in answer.text


async def test_headers_that_drip_on_a_kept_connection_get_408(ingress: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", ingress.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"200" in await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"}")
    await asyncio.sleep(1.2)  # idle for longer than headers may take: nothing has begun
    writer.write(b"GET /healthz HT")
    async with asyncio.timeout(3):
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_body_that_drips_gets_408(ingress: Service, tenant: Tenant) -> None:
    head = (
        f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        "Content-Length: 100\r\n\r\n"
    ).encode()
    answer = await talk(ingress.url, head, *[piece for _ in range(40) for piece in (b"x", 0.1)])
    assert answer.status == 408
    assert 0.9 < answer.seconds < 2.5


@pytest.mark.parametrize(
    "path", ["/in/src_unknown", f"/in/{ids.encode(Prefix.SOURCE, ids.lowest(1))}", "/in/%00", "/in/", "/in"]
)
async def test_an_unknown_source_is_404(client: Client, path: str) -> None:
    body = stripe_event()
    assert (await send(client, path, body, stripe_signed(body))).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_another_method_is_405(client: Client, tenant: Tenant, method: str) -> None:
    answer = await client.request(method, tenant.path_in("stripe"))
    assert answer.status == 405
    assert answer.headers["Allow"] == "POST"


@pytest.mark.parametrize(
    "head",
    [
        b"POST /in/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /in/x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /in/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_400(ingress: Service, head: bytes) -> None:
    assert (await talk(ingress.url, head)).status == 400


# What is kept of what was refused


async def test_a_refused_request_is_kept_with_its_reason(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    body = stripe_event("evt_kept")
    secret = {"Authorization": "Bearer sesame", "Cookie": "sesame", "X-Api-Key": "sesame"}
    headers = stripe_signed(body, secret="whsec_other") | secret
    assert (await client.request("POST", tenant.path_in("stripe"), data=body, headers=headers)).status == 401
    [row] = await stand.rejected(tenant)
    assert (row["app"], row["source"], row["origin"]) == (tenant.app, tenant.sources["stripe"], "source")
    assert (row["status"], row["body"], row["size"]) == (401, body, len(body))
    assert row["reason"].startswith("mismatch: ")
    assert json.loads(row["headers"])["stripe-signature"] == [headers["Stripe-Signature"]]
    assert "sesame" not in row["headers"]


async def test_each_kind_of_refusal_is_kept(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    path = tenant.path_in("github")
    await send(client, path, b"{", github_signed(b"{", "d"))
    await send(client, path, b"{}", {**github_signed(b"{}", "d"), "Content-Type": "text/plain"})
    await send(client, path, b"{}", {**github_signed(b"{}", "d"), "Content-Encoding": "br"})
    await send(client, path, b"{}", github_signed(b"{}", "d", event="no type"))
    await send(client, path, b"x" * (1024 * 1024 + 1), {"Content-Type": "application/json"})
    rows = await stand.rejected(tenant, 5)
    assert sorted((row["reason"].partition(":")[0], row["status"]) for row in rows) == [
        ("body", 413),
        ("content-encoding", 415),
        ("content-type", 415),
        ("identity", 400),
        ("json", 400),
    ]


async def test_what_was_rejected_is_kept_whole(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    body = b"x" * 200_000
    await send(client, tenant.path_in("github"), body, {"Content-Type": "application/json"})
    [row] = await stand.rejected(tenant)
    assert (row["size"], bytes(row["body"])) == (200_000, body)


async def test_a_flood_of_forged_requests_is_not_kept_whole(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    body = stripe_event("evt_flood")
    headers = stripe_signed(body, secret="whsec_other")
    await asyncio.gather(*(send(client, tenant.path_in("stripe"), body, headers) for _ in range(400)))
    await asyncio.sleep(1)
    assert 50 <= await stand.count("rejected", org=tenant.org) <= 150


async def test_of_one_source_at_most_a_thousand_are_kept(client: Client, stand: Stand) -> None:
    tenant = await stand.create_tenant()
    await stand.observer.execute(
        """
        INSERT INTO hookledger.rejected (id, org, app, source, origin, status, reason, headers, body, size, at)
        SELECT lpad(to_hex(n), 32, '0')::uuid, $1, $2, $3, 'source', 400, 'old', '{}', '', 0, now()
        FROM generate_series(1, 1200) AS n
        """,
        tenant.org,
        tenant.app,
        tenant.sources["github"],
    )
    await send(client, tenant.path_in("github"), b"{", github_signed(b"{", "d", secret=GITHUB_SECRET))
    await stand.until(1000, "rejected", app=tenant.app)
    assert await stand.count("rejected", app=tenant.app, reason="old") == 999
