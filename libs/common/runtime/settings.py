"""Settings from the environment: `HOOKLEDGER_…`, typed, refused with one clear line when unknown or ill-typed.

A service declares its settings as a `msgspec.Struct`; a field `database_url` is read from `HOOKLEDGER_DATABASE_URL`, or
from the file that `HOOKLEDGER_DATABASE_URL_FILE` names, as secrets are mounted.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from libs.common.domain.egress import Egress, EgressError, parse_egress
from libs.common.runtime.sealing import MasterKeys

PREFIX: Final = "HOOKLEDGER_"
_NEAR: Final = 0.75  # of difflib's 0 to 1: a letter or two apart, not another word

PLATFORM_NAMES: Final = frozenset({
    "ALLOW_NETWORKS", "AMQP_PREFIX", "AMQP_URL", "API_KEY", "APP_MESSAGES_PER_SECOND", "BREAKER_AFTER_MS",
    "BREAKER_FAILURES", "BREAKER_LONGEST_WAIT_MS", "BREAKER_WAIT_MS", "CACHE_DIR", "CA_FILE",
    "DATABASE_URL", "DEV", "DISPATCHER_URL", "EGRESS_PROXY", "EGRESS_PROXY_EXCEPT", "ENDPOINT_DISABLED_SECONDS",
    "ENDPOINT_FAILING_SECONDS", "FAILPOINTS", "FRONT_DOOR_TIMEOUT_MS", "HOST", "IDEMPOTENCY_HOURS", "INGRESS_URL",
    "KEY_MESSAGES_PER_SECOND", "LOG_LEVEL", "MASTER_KEY", "MAX_CONCURRENCY", "PORT", "PUBLIC_URL", "REGISTRY_URL",
    "REQUEST_TIMEOUT_MS", "SENDER", "STOP_GRACE_MS", "URL",
})  # fmt: skip
"""Every name that some part of the platform knows. One environment may serve all of them, so a service passes over
what is another's; a name outside this list is a mistake."""


IdempotencyHours = Annotated[
    float,
    Meta(
        gt=0,
        le=720,
        description="how long a repeated key or event id is recognised, fractions allowed; "
        "the same for ingress and registry",
    ),
]
"""Each of the two remembers the keys of what it answers itself."""


class SettingsError(Exception):
    """The environment cannot be used; the text says which setting, and what it should be."""


class BrokerSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What whoever talks to RabbitMQ takes."""

    amqp_url: Annotated[str, Meta(description="RabbitMQ 3.10 or newer, as amqp://user:password@host:port/vhost")]
    amqp_prefix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_\-]{1,64}$", description="first part of exchange and queue names")
    ] = "hookledger"


class CommonSettings(BrokerSettings, kw_only=True, frozen=True):
    """What every service takes."""

    database_url: Annotated[
        str, Meta(description="Postgres 15 or newer, as postgresql://user:password@host:port/database")
    ]
    host: Annotated[str, Meta(description="address to listen on")] = "0.0.0.0"  # noqa: S104  a container's default
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="least level logged")] = "info"
    stop_grace_ms: Annotated[
        int, Meta(ge=0, le=600_000, description="how long work in hand may take after SIGTERM")
    ] = 25_000
    failpoints: Annotated[
        str,
        Meta(description="folder of armed failpoints, for fault tests only: who writes there can kill the process"),
    ] = ""


Settings = TypeVar("Settings", bound=msgspec.Struct)


def load(kind: type[Settings], environ: Mapping[str, str]) -> Settings:
    """The settings of a service or command.

    Raises:
        SettingsError: a setting is unknown, missing, ill-typed or unreadable.
    """
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    values: dict[str, str] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX):
            continue
        short = name.removeprefix(PREFIX)
        plain = short if short in PLATFORM_NAMES else short.removesuffix("_FILE")
        if plain.lower() not in fields:
            if plain in PLATFORM_NAMES:
                continue
            raise SettingsError(f"{name} is not a setting of Hookledger; {_suggestion(short, fields)}")
        if plain.lower() in values:
            raise SettingsError(f"{PREFIX}{plain} and {PREFIX}{plain}_FILE are both set; set one")
        values[plain.lower()] = value if short == plain else _read(name, value)
    missing = [name for name, field in fields.items() if field.required and name not in values]
    if missing:
        raise SettingsError(f"{PREFIX}{missing[0].upper()} is not set: {_described(kind)[missing[0]][1]}")
    try:
        return msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise SettingsError(f"{PREFIX}{place.rstrip('`').upper()}: {reason}") from None


def parse_networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """The networks of `HOOKLEDGER_ALLOW_NETWORKS`: CIDR, separated by commas.

    Raises:
        SettingsError: one of them is not a network.
    """
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise SettingsError(f"{PREFIX}ALLOW_NETWORKS: {error}") from None


def parse_way_out(proxy: str, exceptions: str) -> Egress:
    """The way of `HOOKLEDGER_EGRESS_PROXY` and `HOOKLEDGER_EGRESS_PROXY_EXCEPT`.

    Raises:
        SettingsError: they are not of their form.
    """
    try:
        return parse_egress(proxy, exceptions)
    except EgressError as error:
        raise SettingsError(f"{PREFIX}EGRESS_PROXY, {PREFIX}EGRESS_PROXY_EXCEPT: {error}") from None


def parse_master_keys(text: str) -> MasterKeys:
    """The keys of `HOOKLEDGER_MASTER_KEY`.

    Raises:
        SettingsError: they are not such keys.
    """
    try:
        return MasterKeys.parse(text)
    except ValueError as error:
        raise SettingsError(f"{PREFIX}MASTER_KEY: {error}") from None


def help_text(kind: type[CommonSettings], program: str, purpose: str) -> str:
    """What `--help` prints: each setting with its type, default and meaning."""
    described = _described(kind)
    lines = [f"usage: {program}", "", purpose, "", "Settings, from the environment (each also as NAME_FILE):"]
    for field in msgspec.structs.fields(kind):
        type_name, description = described[field.name]
        default = "required" if field.required else f"default {field.default!r}"
        lines.append(f"  {PREFIX}{field.name.upper()}")
        lines.append(f"      {description} ({type_name}, {default})")
    return "\n".join(lines)


def _described(kind: type[msgspec.Struct]) -> dict[str, tuple[str, str]]:
    described = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        description = ""
        base: Any = hint
        if get_origin(hint) is Annotated:
            base, *extras = get_args(hint)
            description = next((extra.description for extra in extras if isinstance(extra, Meta)), None) or ""
        if get_origin(base) is Literal:
            type_name = " or ".join(cast("tuple[str, ...]", get_args(base)))
        elif base is bool:
            type_name = "1 or true, 0 or false"
        else:
            type_name = getattr(base, "__name__", str(base))
        described[name] = (type_name, description)
    return described


def _suggestion(short: str, fields: Mapping[str, Any]) -> str:
    """What to write in place of `short`, a name without the prefix: the nearest one, if one is near."""
    plain = {name.upper() for name in fields} | PLATFORM_NAMES
    known = sorted(plain | {f"{name}_FILE" for name in plain})
    near = get_close_matches(short.upper(), known, n=1, cutoff=_NEAR)
    return f"did you mean {PREFIX}{near[0]}?" if near else "--help lists those of this service"


def _read(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise SettingsError(f"{name}: {path} cannot be read: {reason}") from None
