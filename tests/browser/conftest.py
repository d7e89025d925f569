"""A headless Chromium, for the pages that people see."""

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

_EXECUTABLES = ("chromium", "chromium-browser", "google-chrome")
# As root there is no sandbox, and nothing is to leave this machine.
_OPTIONS = (
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The machine's own Chromium; without one, the tests that need it are skipped."""
    found = next((path for path in map(shutil.which, _EXECUTABLES) if path), None)
    if found is None:
        pytest.skip("there is no Chromium on this machine (Debian: apt-get install chromium)")
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=found, args=list(_OPTIONS))
        yield started
        await started.close()


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A browser that has seen nothing yet. Whatever a page logs as an error fails its test."""
    opened = await browser.new_context(viewport={"width": 1100, "height": 800})
    opened.set_default_timeout(15_000)
    errors: list[str] = []
    opened.on("weberror", lambda error: errors.append(str(error.error)))
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    yield opened
    await opened.close()
    assert not [error for error in errors if "Content Security Policy" in error or "Error:" in error]


@pytest.fixture
async def page(context: BrowserContext) -> Page:
    return await context.new_page()
