"""The API's document and its page, as they are served."""

import re

import aiohttp

from tests.integration.registry.conftest import Registry
from tests.support.documented import document


async def test_the_document_is_served_to_everyone_and_once(registry: Registry) -> None:
    async with aiohttp.ClientSession(registry.url) as session:
        async with session.get("/openapi.json") as first:
            assert (first.status, first.content_type) == (200, "application/json")
            assert await first.json() == document()
        async with session.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]}) as second:
            assert (second.status, await second.read()) == (304, b"")


async def test_the_page_shows_every_operation_and_needs_nothing_from_elsewhere(registry: Registry) -> None:
    async with aiohttp.ClientSession(registry.url) as session, session.get("/docs") as answer:
        page = await answer.text()
    assert (answer.status, answer.content_type) == (200, "text/html")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for methods in document()["paths"].values():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page
    assert not re.search(r"<script|<link|<img|src=|url\(|@import", page)
    targets = set(re.findall(r'href="#([^"]+)"', page))
    assert targets <= set(re.findall(r'id="([^"]+)"', page)), "each link leads somewhere"
