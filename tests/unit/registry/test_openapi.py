"""The OpenAPI document says what the code does: both are made from one table."""

import re
from typing import Any, cast

import msgspec
import pytest
from aiohttp import web
from openapi_spec_validator import OpenAPIV31SpecValidator

from libs.common.contracts import front_door
from services.ingress.inbound import Inbound
from services.ingress.messages import Messages
from services.ingress.second_looks import SecondLooks
from services.registry.document_examples import EXAMPLES, PATH_PARAMETERS, TAGS
from services.registry.routes import ROUTES, add_routes
from tests.support.documented import document

METHODS = {"get", "post", "put", "patch", "delete"}
OPERATIONS = [
    (path, method, operation) for path, methods in document()["paths"].items() for method, operation in methods.items()
]


def routed(app: web.Application) -> set[tuple[str, str]]:
    """Method and path of each route; aiohttp gives HEAD along with GET, and a wildcard is no operation."""
    return {
        (route.method, route.resource.canonical.removesuffix("{_}").rstrip("/"))
        for route in app.router.routes()
        if route.resource is not None and route.method not in {"HEAD", "*"}
    }


def test_the_document_is_valid_openapi_3_1() -> None:
    OpenAPIV31SpecValidator(document()).validate()


def test_each_route_of_the_registry_is_in_the_document_and_the_other_way_round() -> None:
    app = web.Application()
    add_routes(app)
    elsewhere = {(operation.method, operation.full_path) for operation in front_door.OPERATIONS}
    assert routed(app) == {(method.upper(), path) for path, method, _ in OPERATIONS} - elsewhere


def test_each_route_that_ingress_answers_itself_is_in_the_document_and_the_other_way_round() -> None:
    app = web.Application()
    nothing = cast("Any", None)
    Messages(nothing, nothing, nothing, nothing, nothing, body_seconds=1).add_routes(app)
    Inbound(nothing, nothing, nothing, nothing, body_seconds=1).add_routes(app)
    SecondLooks(nothing, nothing, nothing, nothing, body_seconds=1).add_routes(app)
    by_wildcard = {("GET", front_door.CHALLENGE.full_path)}
    assert routed(app) | by_wildcard == {(operation.method, operation.full_path) for operation in front_door.OPERATIONS}


def test_operation_ids_are_unique() -> None:
    found = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(found) == len(set(found))


def test_each_operation_tag_and_parameter_is_described() -> None:
    assert [path for path, _, operation in OPERATIONS if not operation["summary"]] == []
    assert {tag["name"] for tag in document()["tags"]} <= set(TAGS)
    assert {name for path in document()["paths"] for name in re.findall(r"\{(\w+)\}", path)} <= set(PATH_PARAMETERS)
    assert [
        parameter
        for _, _, operation in OPERATIONS
        for parameter in operation.get("parameters", [])
        if "$ref" not in parameter and not parameter["description"]
    ] == []


def test_each_body_has_an_example() -> None:
    bodies = {route.operation.body for route in ROUTES} | {
        operation.body for operation in front_door.OPERATIONS if not operation.root
    }
    assert bodies - {None} == set(EXAMPLES)


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_an_example_is_one(kind: type[Any]) -> None:
    msgspec.json.decode(msgspec.json.encode(EXAMPLES[kind]), type=kind)


def test_patterns_are_those_of_ecma_262() -> None:
    assert r"\Z" not in msgspec.json.encode(document()).decode().replace("\\\\", "\\")
