"""An example of a payload, from the newest schema of its event type. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

DEEPEST: Final = 8
MOST_PROPERTIES: Final = 100
_MINIMAL: Final[Mapping[str, Any]] = {
    "string": "string", "integer": 0, "number": 0, "boolean": True, "null": None, "array": [], "object": {},
}  # fmt: skip
_FORMATS: Final = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "email": "user@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def payload_of(schemas: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
    """The example that the schema of the highest version gives, or one made of its properties; always an object."""
    if not schemas:
        return {}
    newest = max(schemas, key=lambda version: (int(version) if version.isdecimal() else -1, version))
    schema = msgspec.json.decode(bytes(schemas[newest]))
    found = _example(schema, 0)
    return found if isinstance(found, dict) else {}


def _example(schema: Any, depth: int) -> Any:
    if not isinstance(schema, dict):
        return {}
    examples = schema.get("examples")
    if isinstance(examples, list) and examples:
        return examples[0]
    for said in ("example", "const", "default"):
        if said in schema:
            return schema[said]
    choices = schema.get("enum")
    if isinstance(choices, list) and choices:
        return choices[0]
    return _made(schema, depth)


def _made(schema: dict[str, Any], depth: int) -> Any:
    """The least that the schema's type allows; of an object, all properties that it names."""
    kinds = schema.get("type", "object" if "properties" in schema else None)
    kind = kinds[0] if isinstance(kinds, list) and kinds else kinds
    properties = schema.get("properties")
    if kind == "object" and isinstance(properties, dict) and depth < DEEPEST:
        return {name: _example(each, depth + 1) for name, each in list(properties.items())[:MOST_PROPERTIES]}
    if kind == "array" and "items" in schema and depth < DEEPEST:
        return [_example(schema["items"], depth + 1)]
    if kind == "string" and schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    return _MINIMAL.get(kind, {}) if isinstance(kind, str) else {}
