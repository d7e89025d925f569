"""Requests as no client would send them: each has its status within its deadline, and leaves nothing behind."""

import asyncio
import json
import re
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deploy.stack.services import Service
from services.ingress.rejections import MAX_WAITING_BYTES
from tests.integration.ingress.stand import Tenant, stripe_event, stripe_signed

REFUSALS = frozenset({400, 401, 404, 405, 408, 413, 415, 417, 422})
"""417: what asks for the unknown by `Expect` where there is no route (RFC 9110, 10.1.1)."""
DEADLINE_SECONDS = 5.0
"""The headers have a second here and then the body has one; the rest is what a busy machine takes."""
MOST_GROWTH_BYTES = 16 * 1024 * 1024
AT_ONCE = 50

BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


# A request that two servers could divide differently is none


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"0\r\n\r\n"),
        (b"Content-Length: 0\r\nContent-Length: 36\r\n", b""),
        (b"Content-Length: 0, 36\r\n", b""),
        (b"Content-Length: +1\r\n", b"x"),
        (b"Content-Length: 0x1\r\n", b"x"),
        (b"Content-Length: 1_0\r\n", b"0123456789"),
        (b"Content-Length : 1\r\n", b"x"),
        (b"Content-Length: \xc2\xb2\r\n", b"x"),
        (b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: xchunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked, identity\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"-1\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"0x1\r\nx\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"2\r\nxyz\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\n", b"1\nx\n0\n\n"),
        (b"X: a\r\n Transfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"X: a\rTransfer-Encoding: chunked\r\n", b"0\r\n\r\n"),
        (b"X: a\0b\r\n", b""),
        (b"X\xff: a\r\n", b""),
        (b": a\r\n", b""),
    ],
)
async def test_what_could_be_divided_differently_is_refused_with_all_that_is_behind_it(
    ingress: Service, tenant: Tenant, headers: bytes, body: bytes
) -> None:
    head = f"POST {tenant.path_in('stripe')} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n".encode()
    said = await everything(ingress, head + headers + b"\r\n" + body + BEHIND)
    assert said.split()[1:2] == [b"400"], said
    assert json.loads(said.partition(b"\r\n\r\n")[2])["code"] == "bad_request"
    assert said.count(b"HTTP/1.") == 1, "what is behind it was taken for a request"
    assert re.findall(rb"\r\nServer: ([^\r]*)", said) == [b"hookledger"], "which library reads it is nobody's business"


# Whatever else comes

BODY = stripe_event("evt_malformed")
VALUES = st.sampled_from(
    [
        b"chunked", b"gzip", b"-1", b"0", b"1048577", b"99999999999999999999", b"100-continue", b"h2c", b"close",
        b"application/json", b"text/plain", b"\xff\xfe", b"a" * 9000, b"t=1,v1=0", b"", b" \t",
    ]
)  # fmt: skip
NAMES = st.sampled_from(
    [
        b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Content-Type", b"Expect", b"Upgrade",
        b"Connection", b"Host", b"Stripe-Signature", b"X-A", b"X A", b"",
    ]
)  # fmt: skip
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=4)
BODIES = st.sampled_from([BODY, b"", b"{", b'{"a":NaN}', b"[" * 5000, b'"\\ud800"', b"\0" * 100]) | st.binary(
    max_size=200
)
CUTS = st.tuples(st.integers(0, 2000), st.integers(0, 40), st.binary(max_size=8))


@st.composite
def malformed(draw: st.DrawFn) -> bytes:
    """A request that was nearly right, and that nobody signed."""
    headers = [(b"Host", b"a"), (b"Content-Type", b"application/json"), *draw(HEADERS)]
    body = draw(BODIES)
    if draw(st.booleans()):
        headers.append((b"Content-Length", str(len(body) + draw(st.integers(-1, 1))).encode()))
    lines = [b"POST %PATH% HTTP/1.1", *(name + b": " + value for name, value in headers), b"", body]
    request = b"\r\n".join(lines)
    for place, length, instead in draw(st.lists(CUTS, max_size=2)):
        request = request[:place] + instead + request[place + length :]
    return request or b"\r\n"


async def test_two_hundred_malformed_requests_get_their_status_in_time_and_memory_does_not_grow(
    ingress: Service, tenant: Tenant
) -> None:
    loop = asyncio.get_running_loop()
    path = tenant.path_in("stripe").encode()
    resident: list[int] = []

    async def send(requests: list[bytes]) -> None:
        sent = [request.replace(b"%PATH%", path) for request in requests]
        statuses = await asyncio.gather(*(status(ingress, each) for each in sent))
        strange = {each: got for each, got in zip(sent, statuses, strict=True) if got not in REFUSALS}
        assert strange == {}
        resident.append(resident_bytes(ingress))

    @settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(malformed(), min_size=AT_ONCE, max_size=AT_ONCE))
    def flood(requests: list[bytes]) -> None:
        asyncio.run_coroutine_threadsafe(send(requests), loop).result(60)

    await asyncio.to_thread(flood)
    assert max(resident[1:]) - resident[0] < MOST_GROWTH_BYTES
    assert await status(ingress, signed_request(path)) == 202


async def test_duplicate_signatures_slow_and_large_ones_at_once_leave_no_memory_behind(
    ingress: Service, tenant: Tenant
) -> None:
    path = tenant.path_in("stripe").encode()
    twice = signed_request(path).replace(b"Stripe-Signature:", b"Stripe-Signature: t=1,v1=0\r\nStripe-Signature:")
    slow_head = b"POST " + path + b" HTTP/1.1\r\nHost:"
    slow_body = signed_request(path)[:-1]
    large = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n"
    growing = large.replace(b"Content-Length: 1048577", b"Transfer-Encoding: chunked") + b"110000\r\n" + b"x" * 0x110000
    expected = {twice: 401, slow_head: 408, slow_body: 408, large: 413, growing: 413}
    resident = []
    for _ in range(5):
        asked = [request for request in expected for _ in range(8)]
        answers = await asyncio.gather(*(status(ingress, request) for request in asked))
        assert answers == [expected[request] for request in asked]
        resident.append(resident_bytes(ingress))
    assert resident[-1] - resident[0] < MAX_WAITING_BYTES + MOST_GROWTH_BYTES, "five rounds bring more than that"


def signed_request(path: bytes) -> bytes:
    headers = stripe_signed(BODY) | {"Host": "a", "Content-Length": str(len(BODY))}
    lines = [f"{name}: {value}".encode() for name, value in headers.items()]
    return b"\r\n".join([b"POST " + path + b" HTTP/1.1", *lines, b"", BODY])


async def status(ingress: Service, request: bytes) -> int:
    """The status of the final answer to what was sent; the connection is then closed."""
    began = time.monotonic()
    reader, writer = await opened(ingress, request)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (found := int((await reader.readuntil(b"\r\n\r\n")).split()[1])) == 100:
                pass
    except (TimeoutError, asyncio.IncompleteReadError) as error:
        waited = time.monotonic() - began
        raise AssertionError(f"no answer within {waited:.1f} s to {request[:300]!r}") from error
    finally:
        writer.close()
    return found


async def everything(ingress: Service, request: bytes) -> bytes:
    """All that comes back until the other side closes."""
    reader, writer = await opened(ingress, request)
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await reader.read()
    finally:
        writer.close()


async def opened(ingress: Service, request: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(ingress.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(request)
    return reader, writer


def resident_bytes(service: Service) -> int:
    """Memory of the service's process."""
    [line] = [each for each in Path(f"/proc/{service.pid}/status").read_text().splitlines() if each.startswith("VmRSS")]
    return int(line.split()[1]) * 1024
