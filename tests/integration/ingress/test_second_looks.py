"""A second look at what was rejected: judged again by mended secrets, and admitted by an operator."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from deploy.stack.services import Service
from libs.common.contracts.registry import Kind, SchemaValidation, Scope
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.ingress.stand import Stand, Tenant, github_signed, stripe_event, stripe_signed
from tests.integration.ingress.test_schemas import event_type, validate
from tests.support.client import Answer, Client, connected

OTHER = "whsec_another"


@pytest.fixture
async def shop(stand: Stand) -> Tenant:
    return await stand.create_tenant()


@pytest.fixture
async def operator(ingress: Service, stand: Stand, shop: Tenant) -> AsyncIterator[Client]:
    async with connected(ingress.url, await stand.create_key(shop.org, Scope.ADMIN)) as client:
        yield client


async def rejected(
    operator: Client, stand: Stand, shop: Tenant, body: bytes, headers: dict[str, str], **to: str
) -> Any:
    """The row of a request that was just rejected."""
    before = await stand.count("rejected", org=shop.org)
    answer = await operator.request("POST", shop.path_in(to.get("provider", "stripe")), data=body, headers=headers)
    assert answer.status >= 400
    return (await stand.rejected(shop, before + 1))[-1]


async def look(operator: Client, shop: Tenant, row: Any, act: str, **body: Any) -> Answer:
    path = f"/api/v1/app/{shop.app_id}/rejected/{ids.encode(Prefix.REJECTED, row['id'])}/{act}"
    return await operator.request("POST", path, json=body or None)


async def acts(stand: Stand, row: Any) -> list[tuple[str, str]]:
    rows = await stand.observer.fetch(
        "SELECT kind, actor FROM hookledger.registry_fact WHERE stream = $1 ORDER BY version", row["id"]
    )
    return [(each["kind"], each["actor"].partition(":")[0]) for each in rows]


async def test_after_its_secret_is_mended_a_request_is_believed_and_admitted_once(
    operator: Client, stand: Stand, shop: Tenant
) -> None:
    body = stripe_event("evt_mended")
    row = await rejected(operator, stand, shop, body, stripe_signed(body, secret=OTHER))
    before = await look(operator, shop, row, "re-verify")
    assert (before.status, before.json["verified"], before.json["acceptable"]) == (200, False, False)
    assert before.json["reason"].startswith("mismatch")
    await stand.rotate_source(shop.sources["stripe"], OTHER)
    after = await look(operator, shop, row, "re-verify")
    assert (after.json["verified"], after.json["acceptable"], after.json["reason"]) == (True, True, None)
    answers = await asyncio.gather(*(look(operator, shop, row, "admit") for _ in range(5)))
    assert {answer.status for answer in answers} == {202}
    [identity] = {answer.json["id"] for answer in answers}
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 4
    message = ids.decode(Prefix.MESSAGE, identity)
    assert await stand.count("message", id=message, event_type="payment_intent.succeeded", origin="source") == 1
    assert await stand.count("message_body", message=message, body=body) == 1
    assert await stand.count("rejected", id=row["id"], message=message) == 1
    assert await acts(stand, row) == [("RejectedReverified", "key")] * 2 + [("RejectedAdmitted", "key")]
    said = await stand.observer.fetchval(
        "SELECT data FROM hookledger.registry_fact WHERE stream = $1 AND kind = 'RejectedAdmitted'", row["id"]
    )
    assert json.loads(said)["document"]["message"] == identity
    assert json.loads(said)["document"]["rejectedAt"].startswith(row["at"].strftime("%Y-%m-%dT%H:%M:%S"))


async def test_what_its_provider_sent_again_is_the_same_message(operator: Client, stand: Stand, shop: Tenant) -> None:
    body = stripe_event("evt_again")
    row = await rejected(operator, stand, shop, body, stripe_signed(body, secret=OTHER))
    sent = await operator.request("POST", shop.path_in("stripe"), data=body, headers=stripe_signed(body))
    answer = await look(operator, shop, row, "admit")
    assert (answer.status, answer.json["id"]) == (202, sent.json["id"])
    assert answer.headers["Idempotent-Replayed"] == "true"


async def test_a_late_one_is_believed_when_its_time_is_ignored(operator: Client, stand: Stand, shop: Tenant) -> None:
    body = stripe_event("evt_late")
    row = await rejected(operator, stand, shop, body, stripe_signed(body, at=time.time() - 3600))
    judged = await look(operator, shop, row, "re-verify")
    assert (judged.json["verified"], judged.json["reason"][:5]) == (False, "stale")
    judged = await look(operator, shop, row, "re-verify", ignoreTimestamp=True)
    assert (judged.json["verified"], judged.json["acceptable"]) == (True, True)


async def test_what_cannot_be_read_cannot_be_admitted(operator: Client, stand: Stand, shop: Tenant) -> None:
    body = b'{"a":1,"a":2}'
    row = await rejected(operator, stand, shop, body, github_signed(body, "d-1"), provider="github")
    judged = await look(operator, shop, row, "re-verify")
    assert (judged.json["verified"], judged.json["acceptable"]) == (True, False)
    answer = await look(operator, shop, row, "admit")
    assert (answer.status, "same key twice" in answer.json["detail"]) == (409, True)


async def test_an_operator_looks_and_nobody_else(
    operator: Client, client: Client, stand: Stand, shop: Tenant, ingress: Service
) -> None:
    body = stripe_event("evt_nobody")
    row = await rejected(operator, stand, shop, body, stripe_signed(body, secret=OTHER))
    async with connected(ingress.url, shop.key) as producer:
        assert (await look(producer, shop, row, "admit")).status == 403
    assert (await look(client, shop, row, "admit")).status == 403, "the tenant's key publishes"
    other = await stand.create_tenant()
    async with connected(ingress.url, await stand.create_key(other.org, Scope.ADMIN)) as stranger:
        assert (await look(stranger, shop, row, "admit")).status == 404
        assert (await look(stranger, other, row, "admit")).status == 404
    assert (await look(operator, shop, {"id": shop.org}, "re-verify")).status == 404


@pytest.mark.parametrize("act", ["re-verify", "admit"])
async def test_the_operators_key_was_used(operator: Client, stand: Stand, shop: Tenant, act: str) -> None:
    body = stripe_event("evt_used")
    row = await rejected(operator, stand, shop, body, stripe_signed(body, secret=OTHER))
    assert (await look(operator, shop, row, act)).status < 300
    key = await stand.observer.fetchval(
        "SELECT id FROM hookledger.registry_object WHERE kind = $1 AND org = $2 ORDER BY id DESC",
        Kind.API_KEY,
        shop.org,
    )
    await stand.until(1, "key_use", key=key)


async def test_what_violates_its_schema_waits_until_that_is_mended(
    operator: Client, stand: Stand, shop: Tenant
) -> None:
    await event_type(stand, shop, "payment_intent.succeeded", {"required": ["never"]})
    await validate(stand, shop, SchemaValidation.ENFORCE)
    body = stripe_event("evt_violating")
    row = await rejected(operator, stand, shop, body, stripe_signed(body))
    assert (row["status"], row["reason"].partition(":")[0]) == (422, "schema")
    judged = await look(operator, shop, row, "re-verify")
    assert (judged.json["verified"], judged.json["acceptable"], judged.json["reason"][:7]) == (True, False, "schema:")
    assert (await look(operator, shop, row, "admit")).status == 422
    await validate(stand, shop, SchemaValidation.WARN)
    assert (await look(operator, shop, row, "re-verify")).json["acceptable"]
    assert (await look(operator, shop, row, "admit")).status == 202
