"""The OpenAPI 3.1 document, made from the table of operations and the types that it names.

Source: OpenAPI Specification 3.1.0; its schemas are JSON Schema 2020-12, as msgspec writes them.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from libs.common.contracts.operations import ErrorOut, Operation, QueryParameter, ValidationErrorOut
from services.registry.document_examples import EXAMPLES, PATH_PARAMETERS, TAGS

_PAGE: Final = re.compile(r"\bPageOut_(\w+)_$")
_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"
_ANY_TYPE: Final[dict[str, Any]] = {"*/*": {"schema": {}}}
_IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": (
        "Under the same key and path, the first answer is given again for 24 hours, unless it is configured otherwise, "
        "with `Idempotent-Replayed: true`; another request under it is 409."
    ),
    "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[ -~]+$"},
}
_DESCRIPTION: Final = """\
Register applications and endpoints, publish messages, and look up what became of each delivery.

Lists are pages, `{data, iterator, prevIterator, done}`. Errors are `{code, detail}`; where a request does not validate,
`detail` is a list of `{loc, msg, type}`. In paths, ids and the `uid`s that you chose are interchangeable, and a
trailing slash is optional. What belongs to another organisation is 404. Texts hold no NUL character, and a whole
number is written as one: `1`, not `1.0`."""
_REFUSALS: Final[Mapping[int, str]] = {
    400: "It cannot be done as asked: the detail says which limit it exceeds.",
    401: "There is no credential, or it is not known, or no longer valid.",
    403: "The credential does not allow this.",
    404: "There is no such object, or it is another organisation's.",
    405: "The path has no such method; `Allow` lists those it has.",
    408: "The headers or the body did not arrive in time.",
    409: "It conflicts with what is there, or the Idempotency-Key was used for another request.",
    413: "The body is too large.",
    415: "The body is encoded, or of a content type that is not taken.",
    422: "It does not validate: each item of the detail names a place and what to mend.",
    429: "Too many requests; come back after `Retry-After` seconds.",
    502: "The registry broke off behind the front door.",
    503: "A server behind this one does not answer; come back after `Retry-After` seconds.",
    504: "The answer took too long; ask for less, or again.",
}
_AUTHENTICATED: Final = (401, 403, 422, 429, 502, 503, 504)
_CONFLICTING: Final = frozenset({"POST", "PUT", "PATCH"})
_WITH_BODY: Final = (408, 413, 415)
_COME_BACK: Final = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}}}


def document(operations: Sequence[Operation], *, version: str) -> dict[str, Any]:
    """The whole document."""
    types = [*dict.fromkeys(_types(operations))]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.full_path, {})[operation.method.lower()] = _operation(operation, by_type)
    whole: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Hookledger",
            "version": version,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [_tag(name) for name in dict.fromkeys(operation.tag for operation in operations)],
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "parameters": {"idempotencyKey": _IDEMPOTENCY_KEY},
            "responses": {str(status): _refusal(status, by_type) for status in _REFUSALS},
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "A key from `hookledger key create`."}
            },
        },
    }
    return {name: _portable(part) for name, part in whole.items()}


def refusals(operation: Operation) -> list[int]:
    """The statuses with which an operation may refuse, in order."""
    found = set(operation.refusals)
    if operation.access is not None:
        found.update(_AUTHENTICATED)
        if "{" in operation.path:
            found.add(404)
        if operation.method in _CONFLICTING:
            found.add(409)
        if operation.method != "GET":
            found.update(_WITH_BODY)
    return sorted(found)


def _operation(operation: Operation, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", operation.path)
    parameters: list[dict[str, Any]] = [_path_parameter(name) for name in names]
    parameters += map(_query_parameter, operation.query)
    if operation.idempotent_by_key:
        parameters.append({"$ref": "#/components/parameters/idempotencyKey"})
    described: dict[str, Any] = {"operationId": operation.id, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = {"required": operation.body_required, "content": _body(operation.body, by_type)}
    answers = {str(status): _answer(status, answer, by_type) for status, answer in operation.answers.items()}
    described["responses"] = answers | {
        str(status): {"$ref": f"#/components/responses/{status}"} for status in refusals(operation)
    }
    if operation.access is None:
        described["security"] = []
    else:
        described["x-scope"] = operation.access.scope
    return described


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": PATH_PARAMETERS.get(name, ""),
        "schema": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": r"^[a-zA-Z0-9\-_.]+$"},
    }


def _query_parameter(parameter: QueryParameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": False,
        "description": parameter.description,
        "schema": dict(parameter.schema),
    }


def _body(kind: Any, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    if kind is Any:
        return _ANY_TYPE
    content: dict[str, Any] = {"schema": by_type[kind]}
    if kind in EXAMPLES:
        content["example"] = EXAMPLES[kind]
    return {_JSON: content}


def _answer(status: int, answer: Any, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    content = {}
    for kind in _kinds(answer):
        if kind is str:
            content["text/plain"] = {"schema": {"type": "string"}}
        elif kind is not None:
            content[_JSON] = {"schema": by_type[kind]}
    if content:
        described["content"] = content
        if None in _kinds(answer):
            # OpenAPI has no words for a body that may be missing.
            described["description"] += ", at times without a body"
            described["x-empty"] = True
    return described


def _refusal(status: int, by_type: Mapping[Any, Any]) -> dict[str, Any]:
    kind = ValidationErrorOut if status == HTTPStatus.UNPROCESSABLE_ENTITY else ErrorOut
    described = {"description": _REFUSALS[status], "content": {_JSON: {"schema": by_type[kind]}}}
    return described | ({"headers": _COME_BACK} if status in {429, 503} else {})


def _tag(name: str) -> dict[str, str]:
    return {"name": name, "description": TAGS.get(name, "")}


def _kinds(answer: Any) -> tuple[Any, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _types(operations: Iterable[Operation]) -> Iterator[Any]:
    yield from (ErrorOut, ValidationErrorOut)
    for operation in operations:
        for answer in operation.answers.values():
            yield from (kind for kind in _kinds(answer) if kind not in {None, str})
        if operation.body not in {None, Any}:
            yield operation.body


def _portable(value: Any, key: str = "") -> Any:
    """`value` with patterns as ECMA 262 writes them, and readable names for pages.

    ECMA 262 has no anchor but `$` for the end of a text, which in Python also matches before a last line feed.
    """
    match value:
        case dict():
            return {_PAGE.sub(r"PageOf\1", name): _portable(inner, name) for name, inner in value.items()}
        case list() | tuple():
            return [_portable(inner) for inner in value]
        case str() if key == "pattern":
            return value.replace(r"\Z", "$")
        case str() if key == "$ref":
            return _PAGE.sub(r"PageOf\1", value)
        case _:
            return value
