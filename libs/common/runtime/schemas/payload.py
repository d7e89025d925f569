"""Checking payloads by a schema: JSON Schema 2020-12, offline, with every violation's path."""

from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import jsonschema_rs

from libs.common.contracts import strictjson
from libs.common.runtime.schemas.cost import BadSchemaError, Cost, Path

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
LONGEST_SCHEMA: Final = 64 * 1024
"""In bytes."""
MOST_WORK: Final = 16 * 1024 * 1024
"""Cost times bytes of the payload: half a second at the very worst, which the hostile alone come near."""
MOST_VIOLATIONS: Final = 10
MOST_LISTED_BYTES: Final = 16 * 1024
"""Of a larger payload only the first violation is told: the library makes all of them, 15 µs each, before the first."""
_LONGEST_MESSAGE: Final = 200

# The engine without look-around, whose time is linear; bounded in the size that an expression may grow to.
_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=64 * 1024, dfa_size_limit=1024 * 1024)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Where a payload violates its schema, and how, in words that do not repeat what it holds."""

    path: Path
    message: str

    def __str__(self) -> str:
        return f"/{'/'.join(map(str, self.path))}: {self.message}"


class PayloadSchema:
    """A schema, compiled.

    Args:
        schema: as it came, parsed.

    Raises:
        BadSchemaError: it is not valid, refers outside of itself, or is too costly.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        _check_dialect(schema)
        try:
            jsonschema_rs.meta.validate(schema | {"$schema": DRAFT})
            self._validator = jsonschema_rs.Draft202012Validator(
                schema, offline=True, pattern_options=_PATTERNS, mask="the value"
            )
        except jsonschema_rs.ValidationError as error:
            raise BadSchemaError(error.message.partition("\n")[0], tuple(error.instance_path)) from None
        except (jsonschema_rs.ReferencingError, ValueError) as error:
            raise BadSchemaError(str(error).partition("\n")[0]) from None
        self._most_bytes = MOST_WORK // max(Cost(schema).total(), 1)

    def violations(self, body: bytes) -> tuple[Violation, ...]:
        """What is wrong with a payload: nothing, or a few violations in the order of their paths."""
        if len(body) > self._most_bytes:
            return (Violation(path=(), message=f"its schema is checked up to {self._most_bytes} bytes only"),)
        try:
            payload = strictjson.parse(body)
        except strictjson.BadJsonError as error:
            return (Violation(path=(), message=str(error)),)
        if self._validator.is_valid(payload):
            return ()
        if len(body) > MOST_LISTED_BYTES:
            return self._first_violation(payload)
        found = map(_violation, islice(self._validator.iter_errors(payload), MOST_VIOLATIONS))
        return tuple(sorted(found, key=lambda each: [str(part) for part in each.path]))

    def _first_violation(self, payload: Any) -> tuple[Violation, ...]:
        try:
            self._validator.validate(payload)
        except jsonschema_rs.ValidationError as error:
            return (_violation(error),)
        return ()


def _violation(error: jsonschema_rs.ValidationError) -> Violation:
    return Violation(path=tuple(error.instance_path), message=error.message[:_LONGEST_MESSAGE])


def _check_dialect(schema: dict[str, Any]) -> None:
    """See that the schema is of the one dialect, and of one piece."""
    if schema.get("$schema", DRAFT) not in {DRAFT, f"{DRAFT}#"}:
        raise BadSchemaError(f"schemas are of JSON Schema 2020-12: {DRAFT}", ("$schema",))
    pending: list[tuple[Path, Any]] = [((), schema)]
    while pending:
        path, item = pending.pop()
        members = enumerate(item) if isinstance(item, list) else item.items() if isinstance(item, dict) else ()
        for key, value in members:
            here = (*path, key)
            if path and key in {"$id", "$schema"} and isinstance(value, str):
                raise BadSchemaError(f"{key} stands at the top of a schema only", here)
            if key in {"$ref", "$dynamicRef"} and isinstance(value, str) and not value.startswith("#"):
                detail = "a schema may refer to its own parts only, as in #/$defs/name; nothing is fetched"
                raise BadSchemaError(detail, here)
            pending.append((here, value))
