"""The shape of the code: who may know what. Import-linter checks the layers; here stands what it cannot see."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from libs.common.contracts import ledger
from libs.common.domain.facts import DeliveryFact, Fact, MessageFact

CHECKOUT = Path(__file__).parents[2]
DOMAIN = sorted((CHECKOUT / "libs/common/domain").rglob("*.py"))
PRODUCT = sorted(path for folder in ("libs", "services") for path in (CHECKOUT / folder).rglob("*.py"))

PURE = frozenset({
    "abc", "base64", "binascii", "bisect", "collections", "collections.abc", "contextlib", "dataclasses", "datetime",
    "email.utils", "enum", "fractions", "functools", "hashlib", "heapq", "hmac", "http", "ipaddress", "itertools",
    "json", "math", "operator", "re", "string", "types", "typing", "urllib.parse", "uuid",
})  # fmt: skip
"""Modules of the standard library that the domain may use: none of them does I/O."""

RECORDS = frozenset({("msgspec", "Struct"), ("msgspec.structs", "replace"), ("msgspec.msgpack", "Decoder")})
"""What the domain's data is made of: a struct is a frozen class of fields that is made in C (decision 31), and so, by
the decoder, is an id.
"""

IMPURE_CALLS = frozenset({
    "now", "utcnow", "today", "uuid1", "uuid4", "getnode", "localtime", "make_msgid", "open", "print", "input",
})  # fmt: skip
"""Names in pure modules that ask a clock, chance or the machine all the same."""


def named(path: Path) -> str:
    return str(path.relative_to(CHECKOUT))


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module


@pytest.mark.parametrize("path", DOMAIN, ids=named)
def test_the_domain_imports_only_itself_and_the_pure_standard_library_and_what_its_data_is_made_of(path: Path) -> None:
    tree = ast.parse(path.read_text())
    wanted = set(imports(tree)) - {module for module, _ in RECORDS}
    assert {name for name in wanted if not name.startswith("libs.common.domain.")} <= PURE
    of_records = {
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in dict(RECORDS)
        for alias in node.names
    }
    assert of_records <= RECORDS
    assert "msgspec" not in {
        alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }


@pytest.mark.parametrize("path", DOMAIN, ids=named)
def test_the_domain_asks_neither_clock_nor_chance_nor_machine(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {getattr(call, "attr", getattr(call, "id", "")) for call in calls}
    assert not names & IMPURE_CALLS


@pytest.mark.parametrize("path", DOMAIN, ids=named)
def test_the_domain_never_waits(path: Path) -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waiting)]


@pytest.mark.parametrize("path", PRODUCT, ids=named)
def test_modules_are_called_after_the_fields_nouns(path: Path) -> None:
    vague = re.compile(r"manager|helper|util|processor|common_|misc|_info|_data", re.IGNORECASE)
    assert not vague.search(path.stem)


def test_every_kind_of_ledger_event_has_a_codec() -> None:
    kinds = {*get_args(MessageFact), *get_args(DeliveryFact)}
    assert kinds == set(get_args(Fact))
    assert {kind.__name__ for kind in kinds} == ledger.KINDS


def test_ledger_events_are_frozen_and_say_everything() -> None:
    for kind in get_args(Fact):
        assert kind.__struct_config__.frozen, kind
        assert not kind.__struct_defaults__, kind
        assert "at" in kind.__struct_fields__, kind


def test_migrations_are_numbered_without_gaps() -> None:
    files = sorted((CHECKOUT / "libs/common/postgres/migrations").glob("*.sql"))
    numbers = [re.fullmatch(r"(\d{4})_[a-z_]+", file.stem) for file in files]
    assert all(numbers), "four digits and a name"
    assert [int(found[1]) for found in numbers if found] == list(range(1, len(files) + 1))


def test_the_services_never_import_one_another() -> None:
    for service in ("ingress", "dispatcher", "registry"):
        others = {"ingress", "dispatcher", "registry"} - {service}
        for path in (CHECKOUT / "services" / service).rglob("*.py"):
            for name in imports(ast.parse(path.read_text())):
                assert name.split(".")[:2] not in [["services", other] for other in others], named(path)
