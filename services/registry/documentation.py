"""`/openapi.json` and `/docs`: the API's document, and a page of it that needs nothing from elsewhere."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import aiohttp_jinja2
import jinja2
import orjson
from aiohttp import web
from markupsafe import Markup, escape

from libs.common.contracts import front_door
from libs.common.contracts.operations import Operation
from services.registry import openapi

_TEMPLATES: Final = Path(__file__).parent / "templates"
# The page runs no script and loads nothing but its own style, which stands in it.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_CODE: Final = re.compile(r"`([^`]+)`")
_CACHE: Final = "no-cache"  # it may be kept, and is asked about each time: an ETag answers that in a few bytes


def build(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of these operations and of those that the front door answers itself."""
    return openapi.document([*operations, *front_door.OPERATIONS], version=version("hookledger"))


def add_templates(app: web.Application) -> None:
    """Have the pages of this service rendered from its folder of templates."""
    aiohttp_jinja2.setup(
        app,
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        filters={"prose": _prose, "json": _json},
    )


def add_documentation(app: web.Application, operations: Sequence[Operation]) -> None:
    """Add the two routes. Both are made once, here."""
    document = build(operations)
    served = _served(orjson.dumps(document), "application/json", {"Access-Control-Allow-Origin": "*"})
    page = aiohttp_jinja2.get_env(app).get_template("docs.html").render(page_of(document))
    app.router.add_get("/openapi.json", served)
    app.router.add_get("/docs{_:/?}", _served(page.encode(), "text/html", {"Content-Security-Policy": _POLICY}))


def page_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What the page's template takes: the document's operations by tag, and its schemas by name."""
    found: dict[str, list[dict[str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found[operation["tags"][0]].append({"path": path, "method": method, **operation})
    return {
        "info": document["info"],
        "tags": [{**tag, "operations": found[tag["name"]]} for tag in document["tags"]],
        "components": document["components"],
    }


def _prose(text: str) -> Markup:
    """A text of the document as HTML: paragraphs, and what stands in backquotes as code."""
    paragraphs = (_CODE.sub(r"<code>\1</code>", str(escape(paragraph))) for paragraph in text.split("\n\n"))
    return Markup("".join(f"<p>{paragraph}</p>" for paragraph in paragraphs))  # noqa: S704  escaped just before


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _served(body: bytes, content_type: str, headers: Mapping[str, str]) -> Any:
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    all_headers = {"ETag": etag, "Cache-Control": _CACHE, **headers}

    async def serve(request: web.Request) -> web.Response:
        if any(tag.value == etag.strip('"') for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=all_headers)
        charset = "utf-8" if content_type.startswith("text/") else None
        return web.Response(body=body, content_type=content_type, charset=charset, headers=all_headers)

    return serve
