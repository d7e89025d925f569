"""SECURITY's table of what a request to `/in` gets: for each cause its status, code and headers, in each of its variants."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import pytest

from deploy.stack.services import Service
from libs.common.contracts.registry import EventTypeDocument, Kind, OrganisationDocument, SchemaValidation
from tests.integration.ingress import causes
from tests.integration.ingress.causes import Variants
from tests.integration.ingress.raw import RawAnswer, talk
from tests.integration.ingress.stand import Stand, Tenant, cut_off
from tests.support.client import connected

DEADLINE_SECONDS: Final = 5.0
"""What needs no waiting is answered at once; the rest is what a busy machine takes."""
HEAD_OR_BODY_SECONDS: Final = 1.0
"""How long the headers, and then the body, may take to come in here."""
CLOSE: Final = {"connection": "close"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table.

    Attributes:
        variants: requests, each in its own way of this cause.
        headers: of the answer, exactly; None for any value.
        after: seconds before which it is not answered.
        count: how many variants there are, so that none is lost unseen.
    """

    cause: str
    status: int
    code: str
    variants: Variants
    count: int
    headers: Mapping[str, str | None] = field(default_factory=dict)
    after: float = 0.0


TABLE: Final = (
    Row(cause="signature", status=401, code="authentication_failed", variants=causes.not_believed, count=32),
    Row(cause="time", status=400, code="bad_request", variants=causes.too_long_ago_or_ahead, count=8),
    Row(cause="json", status=400, code="bad_request", variants=causes.json_that_two_parsers_read_differently, count=78),
    Row(cause="event type", status=400, code="bad_request", variants=causes.no_event_type, count=17),
    Row(cause="no HTTP", status=400, code="bad_request", variants=causes.no_http, count=6, headers=CLOSE),
    Row(cause="source", status=404, code="not_found", variants=causes.no_such_source, count=20),
    Row(
        cause="method",
        status=405,
        code="method_not_allowed",
        variants=causes.another_method,
        count=36,
        headers={"allow": "POST"},
    ),
    Row(
        cause="slow headers",
        status=408,
        code="request_timeout",
        variants=causes.headers_too_slow,
        count=7,
        headers=CLOSE,
        after=HEAD_OR_BODY_SECONDS,
    ),
    Row(
        cause="slow body",
        status=408,
        code="request_timeout",
        variants=causes.body_too_slow,
        count=9,
        headers=CLOSE,
        after=HEAD_OR_BODY_SECONDS,
    ),
    Row(
        cause="declared size",
        status=413,
        code="payload_too_large",
        variants=causes.declared_too_large,
        count=12,
        headers=CLOSE,
    ),
    Row(
        cause="streamed size",
        status=413,
        code="payload_too_large",
        variants=causes.grows_too_large,
        count=3,
        headers=CLOSE,
    ),
    Row(cause="encoding", status=415, code="unsupported_media_type", variants=causes.encoded, count=15),
    Row(
        cause="content type", status=415, code="unsupported_media_type", variants=causes.another_content_type, count=17
    ),
)
SCHEMA: Final = Row(cause="schema", status=422, code="validation", variants=causes.against_the_schema, count=8)
RATE: Final = Row(
    cause="rate", status=429, code="rate_limited", variants=causes.acceptable, count=6, headers={"retry-after": None}
)
DATABASE: Final = Row(
    cause="Postgres down",
    status=503,
    code="unavailable",
    variants=causes.acceptable,
    count=6,
    headers={"retry-after": "1"},
)


def test_these_are_more_than_two_hundred_and_none_is_lost(tenant: Tenant) -> None:
    counts = {row.cause: len(list(row.variants(tenant))) for row in (*TABLE, SCHEMA, RATE, DATABASE)}
    assert counts == {row.cause: row.count for row in (*TABLE, SCHEMA, RATE, DATABASE)}
    assert sum(counts.values()) > 200


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.cause}")
async def test_each_cause_has_its_status_in_time(ingress: Service, tenant: Tenant, row: Row) -> None:
    await hold(row, ingress.url, tenant)


async def test_what_is_not_believed_is_told_nothing(ingress: Service, tenant: Tenant) -> None:
    answers = await asyncio.gather(*(talk(ingress.url, *pieces) for pieces in causes.not_believed(tenant)))
    assert len({str(answer.json) for answer in answers}) == 1


async def test_a_violated_schema_is_422_with_the_path(ingress: Service, stand: Stand) -> None:
    document = OrganisationDocument(name="strict", schema_validation=SchemaValidation.ENFORCE)
    tenant = await stand.create_tenant(organisation=document)
    data = b'{"properties":{"data":{"required":["n"],"properties":{"n":{"type":"integer"}}}}}'
    kind = EventTypeDocument(schemas={"1": msgspec.Raw(data)})
    await stand.create(Kind.EVENT_TYPE, kind, org=tenant.org, uid="order.paid")
    answers = await hold(SCHEMA, ingress.url, tenant)
    found = {tuple(problem["loc"]) for answer in answers for problem in answer.json["detail"]}
    assert found == {("body", "data"), ("body", "data", "n")}


async def test_over_the_rate_is_429_and_says_when_to_come_back(ingress: Service, stand: Stand) -> None:
    tenant = await stand.create_tenant(accept_rate=1)
    async with connected(ingress.url, tenant.key) as client:
        items = [{"eventType": "order.paid", "payload": {}} for _ in range(60)]
        await client.post(f"/app/{tenant.app_id}/msg/batch", {"messages": items})  # a minute's debt
    for answer in await hold(RATE, ingress.url, tenant):
        assert int(answer.headers["retry-after"]) > 1


async def test_without_postgres_it_is_503_and_never_2xx(stand: Stand, tenant: Tenant) -> None:
    async with cut_off(stand, "cut-off") as (replica, cut):
        for pieces in causes.acceptable(tenant):
            assert (await talk(replica.url, *pieces)).status == 202
        await cut()
        await hold(DATABASE, replica.url, tenant)


async def hold(row: Row, url: str, tenant: Tenant) -> list[RawAnswer]:
    """Send all variants of a row at once, and hold each answer against it."""
    variants = list(row.variants(tenant))
    answers = await asyncio.gather(*(talk(url, *pieces, patience=DEADLINE_SECONDS) for pieces in variants))
    for pieces, answer in zip(variants, answers, strict=True):
        told = f"{pieces[0]!r:.400} got {answer.text}"
        assert answer.status == row.status, told
        if not (isinstance(pieces[0], bytes) and pieces[0].startswith(b"HEAD ")):
            assert answer.json["code"] == row.code, told
            assert answer.json["detail"], told
        for name, value in row.headers.items():
            assert name in answer.headers, told
            assert value in {None, answer.headers[name]}, told
        assert answer.headers["content-type"].startswith("application/json"), told
        assert answer.seconds > row.after * 0.9, told
    return answers
