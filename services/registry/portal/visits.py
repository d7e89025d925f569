"""Who visits: the session cookie, signing in and out, and which requests may change something."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp_jinja2
import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from libs.common.contracts.operations import Access, Capability
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from libs.common.runtime.clock import new_id
from libs.common.runtime.http import ApiError
from services.registry.authentication import AppToken
from services.registry.calls import REGISTRY
from services.registry.portal.api import Api, RefusedError

COOKIE: Final = "hookledger_portal"
COOKIE_SECONDS: Final = 7 * 24 * 3600
"""No token lives longer; one that ends sooner is judged by the registry, not by the browser."""
_VISIT: Final = Access(scope=None, capability=Capability.VIEW)
_EXPIRED: Final = "You are not signed in, or the link has expired. Open the portal from where you got the link."


class _SignIn(msgspec.Struct):
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One signed-in request."""

    request: web.Request
    token: AppToken
    api: Api
    application: Mapping[str, Any]

    @property
    def app(self) -> str:
        """The application's id, as paths have it."""
        return ids.encode(Prefix.APPLICATION, self.token.app)

    @property
    def endpoint(self) -> tuple[str, ...]:
        """The API's path of the endpoint in the page's path."""
        return "app", self.app, "endpoint", self.request.match_info["endpoint"]

    @property
    def delivery(self) -> tuple[str, ...]:
        """The API's path of the delivery in the page's path."""
        return "app", self.app, "delivery", self.request.match_info["delivery"]

    def may(self, capability: Capability) -> bool:
        """Whether the token allows it."""
        return capability in self.token.capabilities

    def page(self, template: str, *, status: int = 200, **context: Any) -> web.Response:
        """A page of the portal."""
        common = {
            "application": self.application["name"],
            "once": new_id().hex,
            "may_change": self.may(Capability.MANAGE_ENDPOINT),
            "may_send": self.may(Capability.CREATE_ATTEMPTS),
            "may_see_secret": self.may(Capability.VIEW_SECRET),
        }
        return aiohttp_jinja2.render_template(template, self.request, common | context, status=status)


Page = Callable[[Visit], Awaitable[web.StreamResponse]]


def visiting(page: Page) -> Handler:
    """A route for who is signed in; a refusal by the API becomes a page."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            refuse_other_sites(request)
        try:
            visit = await _visit(request)
        except ApiError:
            return signed_out(request, _EXPIRED, status=401)
        try:
            return await page(visit)
        except RefusedError as refusal:
            detail = {"title": title_of(refusal.status), "detail": refusal.detail}
            return visit.page("problem.html", status=refusal.status, **detail)

    return handle


async def door(request: web.Request) -> web.StreamResponse:
    """GET /portal/: where links lead; their token is in the fragment, which never arrives here."""
    if COOKIE in request.cookies and "signed-out" not in request.query:
        try:
            await _visit(request)
        except (ApiError, RefusedError):
            return signed_out(request, _EXPIRED)
        return signed_out(request, "You are signed in.", onward=True)
    return signed_out(request, "You are signed out." if "signed-out" in request.query else _EXPIRED)


async def sign_in(request: web.Request) -> web.StreamResponse:
    """POST /portal/session: a link's token becomes a cookie that scripts cannot read."""
    refuse_other_sites(request)
    try:
        body = msgspec.json.decode(await request.read(), type=_SignIn)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ApiError(422, "the body is an object with the member `token`, a text") from None
    await request.config_dict[REGISTRY].authentication.caller(f"Bearer {body.token}", _VISIT)
    response = web.Response(status=204)
    response.set_cookie(
        COOKIE,
        body.token,
        max_age=COOKIE_SECONDS,
        path="/portal",
        httponly=True,
        samesite="Strict",
        secure=_is_https(request),
    )
    return response


async def sign_out(request: web.Request) -> web.StreamResponse:
    """POST /portal/sign-out: ends the token, and the cookie with it."""
    refuse_other_sites(request)
    with suppress(ApiError):  # whose token has ended already
        await (await _visit(request)).api.send("POST", "auth", "logout")
    response = web.Response(status=303, headers={"Location": "/portal/?signed-out"})
    response.del_cookie(COOKIE, path="/portal")
    return response


def refuse_other_sites(request: web.Request) -> None:
    """Let only the portal's own pages change something.

    The cookie is not sent with requests from other sites; this is for neighbours on the same site, and for browsers
    that know no SameSite.

    Raises:
        ApiError: 403.
    """
    host = request.headers.get("X-Forwarded-Host", request.host)
    ours = {host, urlsplit(request.config_dict[REGISTRY].public_url).netloc}
    origin = request.headers.get("Origin", "").partition("://")[2]
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin" or not origin or origin not in ours:
        raise ApiError(403, "the request does not come from a page of the portal")


def signed_out(request: web.Request, message: str, *, status: int = 200, onward: bool = False) -> web.Response:
    """The page for who is not (yet) signed in."""
    return aiohttp_jinja2.render_template(
        "sign_in.html", request, {"message": message, "onward": onward}, status=status
    )


def problem(request: web.Request, detail: str, *, status: int) -> web.Response:
    """A page that says what went wrong."""
    context = {"title": title_of(status), "detail": detail}
    return aiohttp_jinja2.render_template("problem.html", request, context, status=status)


def title_of(status: int) -> str:
    """What a page about a refusal is called."""
    return "Not found" if status == web.HTTPNotFound.status_code else "That did not work"


async def _visit(request: web.Request) -> Visit:
    text = request.cookies.get(COOKIE, "")
    token = await request.config_dict[REGISTRY].authentication.caller(f"Bearer {text}", _VISIT)
    assert isinstance(token, AppToken), "no API key has a route without a scope"
    api = Api(request, text)
    application = await api.get("app", ids.encode(Prefix.APPLICATION, token.app))
    return Visit(request=request, token=token, api=api, application=application)


def _is_https(request: web.Request) -> bool:
    public_url = request.config_dict[REGISTRY].public_url
    scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
    return public_url.startswith("https:") or scheme == "https"
