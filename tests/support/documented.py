"""Holds each answer of the API against its OpenAPI document: what a test gets, the document must say."""

import re
from functools import cache
from typing import Any, Final

import jsonschema_rs
import orjson

from services.registry.documentation import build
from services.registry.routes import ROUTES

_NO_SUCH_METHOD: Final = frozenset({404, 405, 413})


@cache
def document() -> dict[str, Any]:
    """The document of this version."""
    built: dict[str, Any] = orjson.loads(orjson.dumps(build([route.operation for route in ROUTES])))
    return built


def check(method: str, path: str, status: int, content_type: str, body: bytes) -> None:
    """That the document has such an answer to such a request; paths that it does not name are let through.

    Raises:
        AssertionError: it does not, with what it says in place of it.
    """
    found = _path(path.partition("?")[0])
    if found is None or method == "HEAD":
        return
    operation = document()["paths"][found].get(method.lower())
    if operation is None:
        assert status in _NO_SUCH_METHOD, f"{method} {found} is not documented, and answers {status}"
        return
    _check_answer(f"{method} {found}", operation["responses"], status, content_type, body)


def _check_answer(what: str, responses: dict[str, Any], status: int, content_type: str, body: bytes) -> None:
    assert str(status) in responses, (
        f"{what} answers {status}, the document knows {', '.join(responses)}: {body[:300]!r}"
    )
    response = _resolved(responses[str(status)])
    kind = content_type.partition(";")[0]
    if not response.get("content"):
        assert body == b"", f"{what} answers {status} with a body, the document with none"
        return
    if response.get("x-empty") and (kind, body) == ("", b""):
        return
    assert kind in response["content"], f"{what} answers {status} as {kind!r}"
    if kind == "application/json":
        validator = _validator(orjson.dumps(response["content"][kind]["schema"]))
        problems = [
            f"{list(error.instance_path)}: {error.message}" for error in validator.iter_errors(orjson.loads(body))
        ]
        assert not problems, f"{what} answers {status} with what the document does not describe: {problems[:5]}"


@cache
def _validator(schema: bytes) -> jsonschema_rs.Draft202012Validator:
    whole = {"components": document()["components"], **orjson.loads(schema)}
    return jsonschema_rs.Draft202012Validator(whole, validate_formats=True)


def _resolved(response: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in response:
        return response
    named: dict[str, Any] = document()["components"]["responses"][response["$ref"].rpartition("/")[2]]
    return named


def _path(path: str) -> str | None:
    return next((template for template, pattern in _patterns() if pattern.fullmatch(path)), None)


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    literal_first = sorted(document()["paths"], key=lambda path: path.count("{"))
    return [(path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path) + "/?")) for path in literal_first]
