"""SECURITY's table of what a request to `/in` gets: for each cause its status, code and headers, in each of its variants."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeAlias

import msgspec
import pytest

from deploy.stack.services import Service
from libs.common.contracts.registry import EventTypeDocument, Kind, OrganisationDocument, SchemaValidation
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.runtime.clock import now
from tests.integration.ingress.raw import RawAnswer, request, talk
from tests.integration.ingress.stand import SECRETS, Stand, Tenant
from tests.support import network, signing
from tests.support.client import connected

Pieces: TypeAlias = tuple[bytes | float, ...]
"""What is sent over one connection: bytes, and pauses in seconds."""
Variants: TypeAlias = Callable[[Tenant], Iterator[Pieces]]

SIGN: Final = {"stripe": signing.stripe, "github": signing.github, "standard-webhooks": signing.standard}
SIGNATURE: Final = {
    "stripe": "Stripe-Signature",
    "github": "X-Hub-Signature-256",
    "standard-webhooks": "webhook-signature",
}
PROVIDERS: Final = tuple(SIGN)
TIMED: Final = ("stripe", "standard-webhooks")
BODY: Final = b'{"id":"evt_table","type":"order.paid","data":{"n":1}}'

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


def signed(provider: str, body: bytes = BODY, *, age: float = 0.0, secret: str = "") -> dict[str, str]:
    """The headers of what this provider sends."""
    at = now() - timedelta(seconds=age)
    return signing.JSON | SIGN[provider](body, secret or SECRETS[provider], at)


def sent(tenant: Tenant, provider: str, body: bytes = BODY, *, chunked: bool = False, **headers: str) -> bytes:
    """What this provider sends, and with it these headers (`_` for `-`)."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return request(tenant.path_in(provider), signed(provider, body) | more, body, chunked=chunked)


# The variants of each cause


def not_believed(tenant: Tenant) -> Iterator[Pieces]:
    other = {"stripe": "whsec_other", "github": "other", "standard-webhooks": "whsec_" + "b3RoZXI=" * 4}
    for provider in PROVIDERS:
        name, path, right = SIGNATURE[provider], tenant.path_in(provider), signed(provider)
        missing = {each: value for each, value in right.items() if each != name}
        for wrong in (
            "",
            "nonsense",
            "é" * 64,
            right[name][:-1],
            right[name].swapcase(),
            right[name] + ",\t" + "0" * 64,
        ):
            if provider != "stripe" or not wrong.endswith("0"):  # Stripe's other schemes are passed over
                yield (request(path, right | {name: wrong}, BODY),)
        yield (request(path, missing, BODY),)
        yield (request(path, right, BODY + b" "),)
        yield (request(path, signed(provider, secret=other[provider]), BODY),)
        for more in (right[name], "nonsense"):
            repeated = f"\r\n{name.lower()}: {more}\r\n".encode()
            yield (request(path, right, BODY).replace(b"\r\n", repeated, 1),)


def too_long_ago_or_ahead(tenant: Tenant) -> Iterator[Pieces]:
    for provider in TIMED:
        for age in (86_400, 310, -310, -86_400):
            yield (request(tenant.path_in(provider), signed(provider, age=age), BODY),)


BAD_JSON: Final = {
    "not JSON": b"{",
    "empty": b"",
    "duplicate keys": b'{"id":"a","id":"b","type":"t"}',
    "two short duplicate keys": b'{"a":1,"a":2}',
    "duplicate keys, one escaped": b'{"id":"a","i\\u0064":"b","type":"t"}',
    "duplicate keys, deeper": b'{"id":"a","type":"t","data":[{"k":1,"k":1}]}',
    "NaN": b'{"id":"a","type":"t","n":NaN}',
    "infinity": b'{"id":"a","type":"t","n":1e999}',
    "nested too deep": b'{"id":"a","type":"t","n":' + b"[" * 64 + b"]" * 64 + b"}",
    "a lone surrogate": b'{"id":"a","type":"t","n":"\\ud800"}',
    "a lone surrogate for a key": b'{"id":"a","type":"t","\\udfff":1}',
    "not UTF-8": b'{"id":"a","type":"t","n":"\xff"}',
    "trailing": b'{"id":"a","type":"t"} x',
}


def json_that_two_parsers_read_differently(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        for body in BAD_JSON.values():
            yield (sent(tenant, provider, body),)
            yield (sent(tenant, provider, body, chunked=True),)


def no_event_type(tenant: Tenant) -> Iterator[Pieces]:
    for body in (b"{}", b'{"type":1}', b'{"type":""}', b'{"type":"a b"}', b'{"type":null}', b"[]", b'"type"'):
        for provider in TIMED:
            yield (sent(tenant, provider, body),)
    for event in ("", "a b", "x" * 300):
        yield (sent(tenant, "github", X_GitHub_Event=event),)


def no_http(tenant: Tenant) -> Iterator[Pieces]:
    line = f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\n".encode()
    yield (line + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",)
    yield (line + b"Content-Length: -1\r\n\r\n",)
    yield (line + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx",)
    yield (line + b"X: a\0b\r\n\r\n",)
    yield (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",)
    yield (b"GET\r\n\r\n",)


def no_such_source(tenant: Tenant) -> Iterator[Pieces]:
    unknown = ids.encode(Prefix.SOURCE, ids.lowest(1))
    another_kind = tenant.app_id
    for path in ("/in/src_unknown", f"/in/{unknown}", f"/in/{another_kind}", "/in/%00", "/in/", "/in"):
        for provider in PROVIDERS:
            yield (request(path, signed(provider), BODY),)
    yield (request(f"/in/{unknown}", {}, method="GET"),)
    yield (request(f"/in/{unknown}", {}, method="DELETE"),)


def another_method(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
            for slash in ("", "/"):
                yield (request(tenant.path_in(provider) + slash, {}, method=method),)


def headers_too_slow(tenant: Tenant) -> Iterator[Pieces]:
    whole = sent(tenant, "stripe", b"")
    for end in (
        1,
        6,
        whole.index(b"HTTP"),
        whole.index(b"Host") + 4,
        whole.index(b"Stripe-Signature: t="),
        len(whole) - 2,
    ):
        yield (whole[:end],)
    yield tuple(piece for letter in whole[:20] for piece in (bytes([letter]), 0.1))


def body_too_slow(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        yield (sent(tenant, provider)[:-1],)
        yield (sent(tenant, provider, chunked=True)[:-7],)
        yield (sent(tenant, provider)[: -len(BODY)], *(piece for _ in range(30) for piece in (b"{", 0.1)))


def declared_too_large(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        for size in (MAX_BODY_BYTES + 1, 10**15):
            yield (sent(tenant, provider, b"", Content_Length=str(size)),)
            yield (sent(tenant, provider, b"", Content_Length=str(size), Expect="100-continue"),)


def grows_too_large(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        head = sent(tenant, provider, b"", chunked=True)[: -len(b"0\r\n\r\n")]
        yield (head, *[b"10000\r\n" + b"x" * 0x10000 + b"\r\n"] * 17)


def encoded(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        for coding in ("gzip", "br", "deflate, gzip", "identity", ""):
            yield (sent(tenant, provider, Content_Encoding=coding),)


def another_content_type(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        for kind in ("text/plain", "", "application/jsonx", "application/json, text/plain", "multipart/form-data"):
            yield (sent(tenant, provider, Content_Type=kind),)
        if provider != "github":  # which may send a form
            yield (sent(tenant, provider, Content_Type=signing.FORM["Content-Type"]),)


def against_the_schema(tenant: Tenant) -> Iterator[Pieces]:
    for provider in TIMED:
        for data in (b"{}", b'{"n":"1"}', b'{"n":null}', b'{"n":1.5}'):
            yield (sent(tenant, provider, b'{"id":"evt_bad","type":"order.paid","data":' + data + b"}"),)


def acceptable(tenant: Tenant) -> Iterator[Pieces]:
    for provider in PROVIDERS:
        yield (sent(tenant, provider),)
        yield (sent(tenant, provider, chunked=True),)


TABLE: Final = (
    Row(cause="signature", status=401, code="authentication_failed", variants=not_believed, count=32),
    Row(cause="time", status=400, code="bad_request", variants=too_long_ago_or_ahead, count=8),
    Row(cause="json", status=400, code="bad_request", variants=json_that_two_parsers_read_differently, count=78),
    Row(cause="event type", status=400, code="bad_request", variants=no_event_type, count=17),
    Row(cause="no HTTP", status=400, code="bad_request", variants=no_http, count=6, headers=CLOSE),
    Row(cause="source", status=404, code="not_found", variants=no_such_source, count=20),
    Row(
        cause="method",
        status=405,
        code="method_not_allowed",
        variants=another_method,
        count=36,
        headers={"allow": "POST"},
    ),
    Row(
        cause="slow headers",
        status=408,
        code="request_timeout",
        variants=headers_too_slow,
        count=7,
        headers=CLOSE,
        after=HEAD_OR_BODY_SECONDS,
    ),
    Row(
        cause="slow body",
        status=408,
        code="request_timeout",
        variants=body_too_slow,
        count=9,
        headers=CLOSE,
        after=HEAD_OR_BODY_SECONDS,
    ),
    Row(
        cause="declared size",
        status=413,
        code="payload_too_large",
        variants=declared_too_large,
        count=12,
        headers=CLOSE,
    ),
    Row(cause="streamed size", status=413, code="payload_too_large", variants=grows_too_large, count=3, headers=CLOSE),
    Row(cause="encoding", status=415, code="unsupported_media_type", variants=encoded, count=15),
    Row(cause="content type", status=415, code="unsupported_media_type", variants=another_content_type, count=17),
)
SCHEMA: Final = Row(cause="schema", status=422, code="validation", variants=against_the_schema, count=8)
RATE: Final = Row(
    cause="rate", status=429, code="rate_limited", variants=acceptable, count=6, headers={"retry-after": None}
)
DATABASE: Final = Row(
    cause="Postgres down", status=503, code="unavailable", variants=acceptable, count=6, headers={"retry-after": "1"}
)


def test_these_are_more_than_two_hundred_and_none_is_lost(tenant: Tenant) -> None:
    counts = {row.cause: len(list(row.variants(tenant))) for row in (*TABLE, SCHEMA, RATE, DATABASE)}
    assert counts == {row.cause: row.count for row in (*TABLE, SCHEMA, RATE, DATABASE)}
    assert sum(counts.values()) > 200


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.status} {row.cause}")
async def test_each_cause_has_its_status_in_time(ingress: Service, tenant: Tenant, row: Row) -> None:
    await hold(row, ingress.url, tenant)


async def test_what_is_not_believed_is_told_nothing(ingress: Service, tenant: Tenant) -> None:
    answers = await asyncio.gather(*(talk(ingress.url, *pieces) for pieces in not_believed(tenant)))
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
    async with cut_off(stand) as (url, cut):
        for pieces in acceptable(tenant):
            assert (await talk(url, *pieces)).status == 202
        await cut()
        await hold(DATABASE, url, tenant)


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


@asynccontextmanager
async def cut_off(stand: Stand) -> AsyncIterator[tuple[str, Callable[[], Awaitable[None]]]]:
    """A replica's URL, and what cuts it off from its database."""
    database = stand.installation.corner.database_url
    async with network.linked(*network.address(database, 5432)) as link:
        replica = stand.replica("cut-off", DATABASE_URL=network.through(link, database))

        async def cut() -> None:
            link.retarget("127.0.0.1", 1)  # where nobody listens
            link.reset()

        await asyncio.to_thread(replica.start)
        try:
            await asyncio.to_thread(replica.wait_ready)
            yield replica.url, cut
        finally:
            await asyncio.to_thread(replica.stop, grace_s=15)
