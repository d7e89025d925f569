"""`POST /in/{source}`: what providers get for what they send."""

import asyncio
import hashlib
import json
from urllib.parse import quote

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


# What is not believed, and what is not taken: each cause in `test_status_table.py`; here, what lies just beside it


async def test_a_secret_that_was_just_rotated_is_believed_at_once(client: Client, stand: Stand, tenant: Tenant) -> None:
    body = stripe_event("evt_rotated")
    source = await stand.create_source(tenant.org, tenant.app, "stripe", "whsec_first")
    path = f"/in/{ids.encode(Prefix.SOURCE, source)}"
    assert (await send(client, path, body, stripe_signed(body, secret="whsec_second"))).status == 401
    await stand.rotate_source(source, "whsec_second")
    assert (await send(client, path, body, stripe_signed(body, secret="whsec_second"))).status == 202


async def test_a_body_of_exactly_one_mebibyte_is_taken(client: Client, tenant: Tenant) -> None:
    head, tail = b'{"id":"evt_large","type":"large","x":"', b'"}'
    body = head + b"x" * (1024 * 1024 - len(head) - len(tail)) + tail
    assert (await send(client, tenant.path_in("stripe"), body, stripe_signed(body))).status == 202


async def test_nesting_of_64_is_taken(client: Client, tenant: Tenant) -> None:
    body = b'{"id":"evt_nested","type":"t","n":' + b"[" * 63 + b"]" * 63 + b"}"
    assert (await send(client, tenant.path_in("stripe"), body, stripe_signed(body))).status == 202


async def test_headers_that_drip_on_a_kept_connection_get_408(ingress: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", ingress.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"200" in await reader.readuntil(b"\r\n\r\n")
    await reader.readuntil(b"}")
    await asyncio.sleep(1.2)  # idle for longer than headers may take: nothing has begun
    writer.write(b"GET /healthz HT")
    async with asyncio.timeout(10):
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()


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
