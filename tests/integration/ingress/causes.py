"""The causes for which a request to `/in` is refused, each in its variants: what providers would never send."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final, TypeAlias

from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.domain.message import MAX_BODY_BYTES
from libs.common.runtime.clock import now
from tests.integration.ingress.raw import request
from tests.integration.ingress.stand import SECRETS, Tenant
from tests.support import signing

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
        for wrong in ("", "nonsense", "é" * 64, right[name][:-1], right[name].swapcase()):
            yield (request(path, right | {name: wrong}, BODY),)
        if provider != "stripe":  # whose other schemes are passed over
            yield (request(path, right | {name: right[name] + ",\t" + "0" * 64}, BODY),)
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
