"""The SQL that each role runs, found in the code: what a service's modules say, and whatever of `libs` they lead to."""

import ast
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from deploy.stack.places import CHECKOUT

ROLES: Final = {
    "hookledger_ingress": ("services.ingress",),
    "hookledger_dispatcher": ("services.dispatcher",),
    # The operator's command takes this role too.
    "hookledger_registry": ("services.registry", "services.admin"),
}
AS_OWNER: Final = {
    "libs.common.postgres.migrate.migrate",
    "libs.common.postgres.rebuild.rebuild_database",
    "libs.common.postgres.retaining.retain",
}
"""They connect as the tables' owner, by themselves."""

_STATEMENT: Final = re.compile(
    r"\s*(?:SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|TRUNCATE|LOCK|CREATE TEMP(?:ORARY)?)\b"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One SQL statement and where it stands."""

    text: str
    place: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    """What a module's text says.

    Attributes:
        definitions: whatever it names at its top: functions, classes, constants.
        imports: names that come from elsewhere in the code, with what they stand for.
    """

    name: str
    path: Path
    definitions: Mapping[str, ast.stmt]
    imports: Mapping[str, str]


@cache
def _module(name: str) -> _Module | None:
    path = CHECKOUT.joinpath(*name.split(".")).with_suffix(".py")
    if not path.exists():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return _Module(name=name, path=path, definitions=_definitions(tree), imports=_imports(tree))


def _definitions(tree: ast.Module) -> dict[str, ast.stmt]:
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                found[node.name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def _imports(tree: ast.Module) -> dict[str, str]:
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(("libs.", "services."))
        for alias in node.names
    }


def _modules(package: str) -> Iterator[_Module]:
    for path in sorted(CHECKOUT.joinpath(*package.split(".")).rglob("*.py")):
        module = _module(".".join(path.relative_to(CHECKOUT).with_suffix("").parts))
        assert module is not None
        yield module


@cache
def statements(role: str) -> Sequence[Statement]:
    """Every statement that is within reach of the role's programs."""
    waiting = [
        f"{module.name}.{name}"
        for package in ROLES[role]
        for module in _modules(package)
        for name in module.definitions
    ]
    reached: set[str] = set(AS_OWNER)
    found: dict[str, Statement] = {}
    while waiting:
        name = waiting.pop()
        if name in reached:
            continue
        reached.add(name)
        module = _module(name.rpartition(".")[0])
        definition = module.definitions.get(name.rpartition(".")[2]) if module else None
        if module is None or definition is None:
            continue
        waiting += _named(module, definition)
        for statement in _said(module, definition):
            found.setdefault(statement.text, statement)
    return tuple(found.values())


def _named(module: _Module, definition: ast.stmt) -> Iterator[str]:
    """What a definition refers to: by a name of its own module, an imported one, or one within an imported module."""
    own, imported = module.definitions, module.imports
    for node in ast.walk(definition):
        match node:
            case ast.Name(id=name) if name in own:
                yield f"{module.name}.{name}"
            case ast.Name(id=name) if name in imported:
                yield imported[name]
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in imported:
                yield f"{imported[name]}.{attribute}"


def _said(module: _Module, definition: ast.stmt) -> Iterator[Statement]:
    within: set[ast.AST] = set()  # the parts of a text with placeholders are no texts of their own
    for node in ast.walk(definition):
        if node in within:
            continue
        match node:
            case ast.Constant(value=str(text)):
                pass
            case ast.JoinedStr() if any(
                isinstance(part, ast.Constant) and _STATEMENT.match(str(part.value)) for part in node.values[:1]
            ):
                within.update(ast.walk(node))
                code = compile(ast.Expression(node), str(module.path), "eval")
                text = eval(code, vars(importlib.import_module(module.name)))  # noqa: S307  the code's own text
            case _:
                continue
        if _STATEMENT.match(text):
            # A list is read in either direction: services/registry/paging.py puts these in.
            text = text.replace(":beyond", ">").replace(":direction", "ASC").replace(":most", "1")
            text = text.replace(":scope", "endpoint").replace(":then", "delivery")
            place = f"{module.path.relative_to(CHECKOUT)}:{node.lineno}"
            for one in text.split(";"):
                if one.strip():
                    yield Statement(text=one.strip(), place=place)
