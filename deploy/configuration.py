"""Writes docs/configuration.md from the settings that the code declares: `python -m deploy.configuration`."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from libs.common.runtime.settings import PLATFORM_NAMES, PREFIX, BrokerSettings, CommonSettings
from services.admin.commands import AdminSettings
from services.admin.listen_command import ListenSettings
from services.admin.secret_commands import SecretSettings
from services.dispatcher.settings import DispatcherSettings
from services.ingress.settings import IngressSettings
from services.registry.settings import RegistrySettings

PAGE: Final = Path(__file__).parents[1] / "docs" / "configuration.md"

Kind = type[msgspec.Struct]
SERVICES: Final[Mapping[str, Kind]] = {
    "ingress": IngressSettings,
    "registry": RegistrySettings,
    "dispatcher": DispatcherSettings,
}
COMMANDS: Final[Mapping[str, Kind]] = {
    "`migrate`, `verify`, `rebuild`, `retain`, `organisation`, `key`": AdminSettings,
    "`secrets`": SecretSettings,
    "`dead-letter`": BrokerSettings,
    "`listen`": ListenSettings,
}

TOOLS: Final[Mapping[str, str]] = {
    "API_KEY": "an API key, for clients; `make up` writes it to `.hookledger/env`",
    "CACHE_DIR": "where `make up` and the tests keep unpacked servers; `.hookledger` by default",
    "DISPATCHER_URL": "where a running dispatcher answers; written by `make up`",
    "INGRESS_URL": "where a running ingress answers; written by `make up`",
    "URL": "the front door, for clients; written by `make up`",
}
"""Names that no service reads and none refuses."""

_UNITS: Final = {"ms": "milliseconds", "seconds": "seconds", "hours": "hours", "bytes": "bytes"}
_BAR: Final = "\\|"  # within a table's cell
_TYPES: Final = {str: "text", int: "whole number", float: "number", bool: "`1` or `true`, `0` or `false`, in any case"}

_HEAD: Final = """\
# Configuration

Written by `make configuration` from the code; a test fails when it is stale.

Everything is read from the environment when a process starts. Each setting can be given as a file instead: `NAME_FILE`
names one whose content, without white space around it, is the value, as secrets are mounted; both together are refused.
A name that begins with `HOOKLEDGER_` and is none of those below stops a process at once, with exit code 2 and the name
that was probably meant; so does a value of another type or beyond its bounds. One environment may serve all: each
process passes over what only others read. `--help` of a service lists its own.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of one kind, as it is shown."""

    name: str
    type: str
    default: str
    meaning: str


def settings_of(kind: Kind) -> dict[str, Setting]:
    """The settings that `kind` declares, by their names in the environment."""
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(kind):
        base: Any = hints[field.name]
        meta = Meta()
        if get_origin(base) is Annotated:
            base, *extras = get_args(base)
            meta = next((extra for extra in extras if isinstance(extra, Meta)), meta)
        name = PREFIX + field.name.upper()
        found[name] = Setting(
            name=name,
            type=_type(field.name, base, meta),
            default="required" if field.required else _default(field.default),
            meaning=meta.description or "",
        )
    return found


def page() -> str:
    """The whole page."""
    kinds = {service: settings_of(kind) for service, kind in SERVICES.items()}
    shared = settings_of(CommonSettings)
    parts = [_HEAD, "## All services\n", _table(list(shared.values()))]
    for service, settings in kinds.items():
        own = [setting for name, setting in settings.items() if name not in shared]
        parts += [f"## {service}\n", _table(own)]
    parts.append("## The command `hookledger`\n")
    for commands, kind in COMMANDS.items():
        parts += [f"{commands}:\n", _table(list(settings_of(kind).values()))]
    tools = [f"| `{PREFIX}{name}` | {meaning} |\n" for name, meaning in sorted(TOOLS.items())]
    parts += [
        "## Passed over by all of them\n",
        "For clients and for the development stack; an environment that holds them is no mistake.\n",
        "| name | meaning |\n|---|---|\n" + "".join(tools),
    ]
    return "\n".join(parts)


def known() -> set[str]:
    """Every name on the page, without the prefix."""
    kinds = [*SERVICES.values(), *COMMANDS.values()]
    return set(TOOLS) | {name.removeprefix(PREFIX) for kind in kinds for name in settings_of(kind)}


def main(words: Sequence[str]) -> int:
    """Write the page; with `--check` only compare, and return 1 where it is stale."""
    assert known() == PLATFORM_NAMES, "each name has its place on the page"
    text = page()
    if "--check" in words:
        if PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("configuration: docs/configuration.md is stale: run `make configuration`", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print("configuration: docs/configuration.md is written")
    return 0


def _type(name: str, base: Any, meta: Meta) -> str:
    if get_origin(base) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(base))
    text = _TYPES[base]
    unit = _UNITS.get(name.rpartition("_")[2])
    if unit:
        text = f"{text} of {unit}"
    low = f"{meta.ge:,} to " if meta.ge is not None else f"above {meta.gt:,}, to " if meta.gt is not None else ""
    if low and meta.le is not None:
        text = f"{text}, {low}{meta.le:,}"
    if meta.pattern is not None:
        text = f"{text} like `{meta.pattern}`"
    return text


def _default(value: object) -> str:
    match value:
        case bool():
            return f"`{int(value)}`"
        case "":
            return "none"
        case float():
            return f"`{value:g}`"
        case _:
            return f"`{value}`"


def _table(settings: Sequence[Setting]) -> str:
    rows = []
    for setting in settings:
        cells = (f"`{setting.name}`", setting.type, setting.default, setting.meaning)
        rows.append(f"| {' | '.join(cell.replace('|', _BAR) for cell in cells)} |\n")
    return "| name | type | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
