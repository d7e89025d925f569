"""The front door: what is not the ingress's own goes to the registry and comes back as it was."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from multidict import CIMultiDictProxy

from deploy.stack.ports import free_port
from deploy.stack.services import Service
from libs.common.contracts.registry import Scope
from tests.integration.ingress.raw import talk
from tests.integration.ingress.stand import Stand, Tenant, started
from tests.support.client import Client, connected


@pytest.fixture(scope="module")
def pair(stand: Stand) -> Iterator[tuple[Service, Service]]:
    """A registry, and an ingress in front of it."""
    registry = stand.installation.service("registry")
    ingress = stand.replica("door", REGISTRY_URL=registry.url)
    with started(registry, ingress):
        yield registry, ingress


@pytest.fixture
async def door(pair: tuple[Service, Service], stand: Stand, tenant: Tenant) -> AsyncIterator[Client]:
    key = await stand.create_key(tenant.org, Scope.ADMIN)
    async with connected(pair[1].url, key) as client:
        yield client


@asynccontextmanager
async def upstream(handle: Any) -> AsyncIterator[str]:
    """A server in the registry's place, for what the registry does not do by itself."""
    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, auto_decompress=False, shutdown_timeout=1)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def in_front_of(stand: Stand, tenant: Tenant, url: str) -> AsyncIterator[Client]:
    replica = stand.replica("other-door", REGISTRY_URL=url, FRONT_DOOR_TIMEOUT_MS="700")
    with started(replica):
        async with connected(replica.url, tenant.key) as client:
            yield client


# With the real registry


async def test_the_registrys_routes_answer_at_the_front_door(door: Client, tenant: Tenant) -> None:
    assert (await door.get(f"/app/{tenant.app_uid}"))["id"] == tenant.app_id
    assert (await door.request("GET", "/api/v1/app/nobody")).status == 404
    made = await door.post("/app", {"name": "through the door"})
    assert (await door.get(f"/app/{made['id']}"))["name"] == "through the door"


async def test_answers_without_a_body_pass(door: Client) -> None:
    app = await door.create_application("short-lived")
    head = await door.request("HEAD", f"/api/v1/app/{app}")
    assert (head.status, head.body) == (200, b"")
    deleted = await door.request("DELETE", f"/api/v1/app/{app}")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await door.request("GET", f"/api/v1/app/{app}")).status == 404


async def test_a_get_on_the_messages_path_is_the_registrys(door: Client, tenant: Tenant) -> None:
    sent = await door.send(tenant.app_id, "order.completed", {"n": 1})
    listed = await door.get(f"/app/{tenant.app_id}/msg")
    assert sent in [message["id"] for message in listed["data"]]


async def test_what_was_just_created_takes_messages_at_once(door: Client) -> None:
    for number in range(10):
        app = await door.create_application(f"app {number}")
        await door.send(app, "order.completed", {"n": number})


async def test_an_application_may_come_with_its_first_message(door: Client) -> None:
    message = {"eventType": "a.b", "payload": {}, "application": {"name": "inline", "uid": "inline-1"}}
    first = await door.request("POST", "/api/v1/app/inline-1/msg", json=message)
    assert first.status == 202
    assert (await door.get("/app/inline-1"))["name"] == "inline"
    again = await door.request("POST", "/api/v1/app/inline-1/msg", json=message)
    assert again.status == 202


async def test_an_inline_application_is_named_by_the_path(door: Client) -> None:
    nameless = {"eventType": "a.b", "payload": {}, "application": {"name": "inline"}}
    assert (await door.request("POST", "/api/v1/app/inline-2/msg", json=nameless)).status == 202
    other = nameless | {"application": {"name": "inline", "uid": "another"}}
    answer = await door.request("POST", "/api/v1/app/inline-3/msg", json=other)
    assert (answer.status, answer.json["detail"][0]["loc"]) == (422, ["body", "application", "uid"])


async def test_what_the_registry_says_of_an_inline_application_is_passed_on(door: Client) -> None:
    message = {"eventType": "a.b", "payload": {}, "application": {"name": 1}}
    answer = await door.request("POST", "/api/v1/app/inline-4/msg", json=message)
    assert (answer.status, answer.json["code"]) == (422, "validation")
    assert answer.json["detail"][0]["loc"] == ["body", "application", "name"]


async def test_fifty_inline_creations_at_once_make_one_application(door: Client) -> None:
    message = {"eventType": "a.b", "payload": {}, "application": {"name": "inline", "uid": "inline-50"}}
    answers = await asyncio.gather(
        *(door.request("POST", "/api/v1/app/inline-50/msg", json=message) for _ in range(50))
    )
    assert {answer.status for answer in answers} == {202}


async def test_while_the_registry_is_down_it_is_503_and_messages_are_still_taken(
    pair: tuple[Service, Service], door: Client, tenant: Tenant
) -> None:
    pair[0].stop()
    try:
        answer = await door.request("GET", "/api/v1/app")
        assert (answer.status, answer.json["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"]
        assert (await door.send(tenant.app_id, "order.completed", {})).startswith("msg_")
    finally:
        pair[0].start()
        pair[0].wait_ready()
    assert (await door.request("GET", "/api/v1/app")).status == 200


async def test_the_front_doors_own_health(door: Client) -> None:
    for path in ("/api/v1/health", "/api/v1/health/"):
        assert (await door.request("GET", path)).status == 204
        assert (await door.request("HEAD", path)).status == 204
    assert (await door.request("GET", "/readyz")).json["status"] == "ready"


async def test_a_body_over_the_bound_is_413(door: Client) -> None:
    answer = await door.request("POST", "/api/v1/app", data=b"x" * (2 * 1024 * 1024 + 1))
    assert (answer.status, answer.json["code"]) == (413, "payload_too_large")


# With a server in its place


async def test_request_and_answer_pass_unchanged_but_for_the_hop(stand: Stand, tenant: Tenant) -> None:
    seen: list[tuple[str, CIMultiDictProxy[str], bytes]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.raw_path, request.headers, await request.read()))
        headers = {
            "Content-Encoding": "gzip",
            "X-Answer": "1",
            "Connection": "X-Hop",
            "X-Hop": "1",
            "Set-Cookie": "a=b",
        }
        return web.Response(status=418, body=b"not gzip at all", headers=headers)

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        for _ in range(2):
            answer = await client.request(
                "PATCH",
                "/api/v1/app/a%2Fb%20c/x?q=%5B1%5D&x[]=1",
                data=b'{"exact" : 1}',
                headers={
                    "X-Request-Id": "mine",
                    "X-Forwarded-For": "6.6.6.6",
                    "Forwarded": "for=6.6.6.6",
                    "Connection": "keep-alive, X-Secret-Hop",
                    "X-Secret-Hop": "1",
                    "TE": "trailers",
                    "Idempotency-Key": "k",
                },
            )
    assert (answer.status, answer.body) == (418, b"not gzip at all")
    assert (answer.headers["X-Answer"], answer.headers["Content-Encoding"]) == ("1", "gzip")
    assert "X-Hop" not in answer.headers
    path, headers, body = seen[1]
    assert path.startswith("/api/v1/app/a%2Fb%20c/x?q=")
    assert body == b'{"exact" : 1}'
    assert headers["X-Request-Id"] == "mine"
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["Idempotency-Key"] == "k"
    assert headers["Authorization"] == f"Bearer {tenant.key}"
    assert not any(name in headers for name in ("Forwarded", "TE", "X-Secret-Hop", "Cookie"))
    assert answer.headers["X-Request-Id"] == "mine"


async def test_both_ways_stream(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        async for chunk in request.content.iter_any():
            await response.write(chunk)
        return response

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        head = b"POST /api/v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
        writer.write(head)
        async with asyncio.timeout(5):
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            assert b"first" in await reader.readuntil(b"first")  # before the rest was sent
            writer.write(b"6\r\nsecond\r\n0\r\n\r\n")
            assert b"second" in await reader.readuntil(b"second")
        writer.close()


async def test_a_registry_that_does_not_answer_is_504(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        answer = await client.request("GET", "/api/v1/app")
        assert (answer.status, answer.json["code"]) == (504, "gateway_timeout")


async def test_a_registry_that_breaks_off_before_its_answer_is_502(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        answer = await client.request("POST", "/api/v1/app", json={})
        assert (answer.status, answer.json["code"]) == (502, "bad_gateway")


async def test_an_answer_that_breaks_off_is_never_taken_for_whole(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"half":')
        assert request.transport is not None
        request.transport.abort()
        return response

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        port = int(client.url.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/app HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(5):
            try:
                got = await reader.read()
            except ConnectionResetError:
                got = b""
        assert not got.endswith(b"0\r\n\r\n")
        writer.close()


async def test_a_client_that_does_not_read_its_answer_gives_the_registrys_connection_back(
    stand: Stand, tenant: Tenant
) -> None:
    given_back = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 0x10000)
        finally:
            given_back.set()

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        _, writer = await asyncio.open_connection("127.0.0.1", int(client.url.rpartition(":")[2]))
        writer.write(b"GET /api/v1/app HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(10):
            await given_back.wait()
        writer.close()


async def test_a_slow_body_to_the_registry_is_408(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        head = b"POST /api/v1/app HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"
        answer = await talk(client.url, head, *[piece for _ in range(40) for piece in (b"x", 0.1)])
        assert answer.status == 408
        assert json.loads(answer.text.partition("\r\n\r\n")[2])["code"] == "request_timeout"


async def test_a_chunked_body_over_the_bound_is_413(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=b"%d" % len(await request.read()))

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        head = b"POST /api/v1/app HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        assert (await talk(client.url, head, *[chunk] * 33)).status == 413
        assert (await talk(client.url, head, *[chunk] * 31, b"0\r\n\r\n")).status == 200


async def test_a_redirect_is_passed_on_and_not_followed(stand: Stand, tenant: Tenant) -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"})

    async with upstream(handle) as url, in_front_of(stand, tenant, url) as client:
        assert (await client.request("GET", "/api/v1/x")).status == 302
