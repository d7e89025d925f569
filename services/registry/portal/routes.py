"""The portal's routes, and what each of its answers carries."""

from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp
import aiohttp_jinja2
import jinja2
from aiohttp import web
from aiohttp.typedefs import Handler
from markupsafe import Markup, escape

from libs.common.postgres.pool import CONNECTION_ERRORS, RETRYABLE_ERRORS
from libs.common.runtime.http import ApiError
from services.registry.portal import actions, pages, visits
from services.registry.portal.api import BUSY, SESSION, RefusedError
from services.registry.portal.visits import visiting

UNAVAILABLE: Final = (*CONNECTION_ERRORS, *RETRYABLE_ERRORS)
_FOLDER: Final = Path(__file__).parent
_CONNECTIONS: Final = 32
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
}
# fmt: off
PAGES: Final = {
    "/endpoints": pages.endpoints,
    "/endpoints/new": actions.new_endpoint,
    r"/endpoints/{endpoint:ep_\w+}": pages.endpoint,
    r"/endpoints/{endpoint:ep_\w+}/edit": actions.edit_endpoint,
    r"/endpoints/{endpoint:ep_\w+}/secret": pages.secret,
    r"/endpoints/{endpoint:ep_\w+}/deliveries": pages.deliveries,
    r"/deliveries/{delivery:dlv_\w+}": pages.delivery,
    r"/deliveries/{delivery:dlv_\w+}/progress": pages.progress,
    r"/deliveries/{delivery:dlv_\w+}/ledger": pages.ledger,
    "/messages": pages.messages,
    r"/messages/{message:msg_\w+}": pages.message,
}
ACTIONS: Final = {
    "/endpoints/new": actions.add_endpoint,
    r"/endpoints/{endpoint:ep_\w+}/edit": actions.save_endpoint,
    r"/endpoints/{endpoint:ep_\w+}/enable": actions.switching(disabled=False),
    r"/endpoints/{endpoint:ep_\w+}/disable": actions.switching(disabled=True),
    r"/endpoints/{endpoint:ep_\w+}/delete": actions.delete_endpoint,
    r"/endpoints/{endpoint:ep_\w+}/test": actions.test_endpoint,
    r"/deliveries/{delivery:dlv_\w+}/resend": actions.resend,
}
# fmt: on


def add_portal(app: web.Application) -> None:
    """Add the portal under /portal/."""
    portal = web.Application(middlewares=[_guarded])
    aiohttp_jinja2.setup(
        portal,
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        filters={"moment": _moment, "breakable": _breakable},
        context_processors=[_defaults],
    )
    portal.cleanup_ctx.append(_session)
    portal.router.add_get("/", visits.door)
    portal.router.add_post("/session", visits.sign_in)
    portal.router.add_post("/sign-out", visits.sign_out)
    portal.router.add_static("/static", _FOLDER / "static")
    for path, page in PAGES.items():
        portal.router.add_get(path, visiting(page))
    for path, action in ACTIONS.items():
        portal.router.add_post(path, visiting(action))
    app.router.add_get("/portal", _to_the_door)
    app.add_subapp("/portal/", portal)


async def _to_the_door(_: web.Request) -> web.Response:
    return web.Response(status=308, headers={"Location": "/portal/"})


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except (ApiError, RefusedError) as refusal:
        response = visits.problem(request, str(refusal.detail), status=refusal.status)
    except web.HTTPNotFound as refusal:
        response = visits.problem(request, "There is no such page.", status=refusal.status)
    except web.HTTPException as refusal:
        response = visits.problem(request, f"{refusal.reason}.", status=refusal.status)
        response.headers.update({"Allow": refusal.headers["Allow"]} if "Allow" in refusal.headers else {})
    except UNAVAILABLE:
        response = visits.problem(request, BUSY, status=web.HTTPServiceUnavailable.status_code)
    response.headers.update(_HEADERS)
    if request.path.startswith("/portal/static/"):
        response.headers["Cache-Control"] = "public, max-age=300"
    return response


async def _session(app: web.Application) -> AsyncIterator[None]:
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()) as it:
        app[SESSION] = it
        yield


async def _defaults(_: web.Request) -> dict[str, object]:
    return {"application": None, "place": None, "notice": None}


def _moment(text: str) -> str:
    """A time of the API as people read it, to the second, in UTC."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")


def _breakable(url: str) -> Markup:
    """A URL that may go on in the next line after each slash."""
    return escape(url).replace("/", Markup("/<wbr>"))
