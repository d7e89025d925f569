"""The webhooks that an OpenAPI document describes, as event types with schemas that stand on their own.

Sources: OpenAPI 3.1, "webhooks"; its predecessor `x-webhooks` in documents of version 3.0, whose dialect of JSON Schema
is turned into 2020-12.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")
_LONGEST_TEXT: Final = 4096
_MOST_PARTS: Final = 1000
MOST_WEBHOOKS: Final = 1000
Path: TypeAlias = tuple[str | int, ...]


class BadDocumentError(ValueError):
    """A document whose webhooks cannot be read. Whoever wrote it erred.

    Args:
        reason: what is wrong.
        path: where, in the document.
    """

    def __init__(self, reason: str, path: Path = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One webhook: its name as an event type, and the schema of its payload, where it has one.

    `path` is where in the document it stands.
    """

    path: Path
    name: str
    description: str
    deprecated: bool
    group: str | None
    schema: dict[str, Any] | None


def webhooks(document: Any) -> Iterator[Webhook]:
    """The webhooks of a document.

    Raises:
        BadDocumentError: it has none, or one cannot be read.
    """
    if not isinstance(document, dict):
        raise BadDocumentError("an OpenAPI document is an object")
    found = [(key, document[key]) for key in ("webhooks", "x-webhooks") if isinstance(document.get(key), dict)]
    if not found:
        raise BadDocumentError("the document has no webhooks: they stand under `webhooks` or `x-webhooks`")
    names: set[str] = set()
    for section, items in found:
        for key, item in items.items():
            webhook = _webhook(document, (section, str(key)), str(key), item)
            if webhook.name in names or len(names) == MOST_WEBHOOKS:
                raise BadDocumentError(f"its name comes twice, or it is one more than {MOST_WEBHOOKS}", webhook.path)
            names.add(webhook.name)
            yield webhook


def _webhook(document: dict[str, Any], path: Path, key: str, item: Any) -> Webhook:
    methods = _resolved(document, item, path)
    operation = next((methods[method] for method in ("post", "put", "get") if method in methods), None)
    if not isinstance(operation, dict):
        raise BadDocumentError("a webhook has an operation, such as `post`", path)
    name = next((text for text in (key, operation.get("operationId")) if _is_name(text)), None)
    if name is None:
        detail = "neither its key nor its operationId is 1 to 256 letters, digits, full stops, hyphens or underscores"
        raise BadDocumentError(detail, path)
    tags = operation.get("tags")
    return Webhook(
        path=path,
        name=name,
        description=str(operation.get("description") or operation.get("summary") or "")[:_LONGEST_TEXT],
        deprecated=operation.get("deprecated") is True,
        group=tags[0] if isinstance(tags, list) and tags and _is_name(tags[0]) else None,
        schema=_schema(document, operation, path),
    )


def _is_name(text: Any) -> bool:
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def _schema(document: dict[str, Any], operation: dict[str, Any], path: Path) -> dict[str, Any] | None:
    body = _resolved(document, operation.get("requestBody", {}), path)
    content = body.get("content")
    media = content.get("application/json") if isinstance(content, dict) else None
    schema = media.get("schema") if isinstance(media, dict) else None
    return _SelfContained(document, path).of(schema) if isinstance(schema, dict) else None


def _resolved(document: dict[str, Any], item: Any, path: Path) -> dict[str, Any]:
    """An object, or the one that it refers to, at most ten steps away."""
    for _ in range(10):
        if not isinstance(item, dict):
            break
        if "$ref" not in item:
            return item
        item = _target(document, item["$ref"], path)
    raise BadDocumentError("a reference leads to nothing that can be read", path)


def _target(document: dict[str, Any], reference: Any, path: Path) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise BadDocumentError("references lead to the document's own parts only, as in #/components/schemas/…", path)
    found: Any = document
    for part in reference[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            raise BadDocumentError(f"{reference[:200]} leads to nothing", path)
        found = found[name]
    return found


class _SelfContained:
    """Makes a schema that carries along, in `$defs`, whatever it refers to."""

    def __init__(self, document: dict[str, Any], path: Path) -> None:
        self._document = document
        self._path = path
        self._names: dict[str, str] = {}
        self._old = str(document.get("openapi", "")).startswith("3.0")

    def of(self, schema: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = self._moved(schema)
        parts: dict[str, Any] = {}
        while len(parts) < len(self._names):
            for reference, name in list(self._names.items())[len(parts) :]:
                parts[name] = self._moved(_target(self._document, reference, self._path))
        if parts:
            made["$defs"] = parts | made.get("$defs", {})
        return made

    def _moved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._moved(each) for each in value]
        if not isinstance(value, dict):
            return value
        made = {str(key): self._moved(each) for key, each in value.items()}
        reference = made.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/") and not reference.startswith("#/$defs/"):
            made["$ref"] = f"#/$defs/{self._name(reference)}"
        return _as_2020(made) if self._old else made

    def _name(self, reference: str) -> str:
        if len(self._names) >= _MOST_PARTS:
            raise BadDocumentError(f"its schema refers to more than {_MOST_PARTS} parts", self._path)
        last = re.sub(r"[^a-zA-Z0-9\-_.]", "_", reference.rpartition("/")[2])
        taken = set(self._names.values())
        name = last if last not in taken else f"{last}_{len(taken)}"
        return self._names.setdefault(reference, name)


def _as_2020(schema: dict[str, Any]) -> dict[str, Any]:
    """What OpenAPI 3.0 says in words of its own, in those of JSON Schema 2020-12."""
    if schema.pop("nullable", False) is True and isinstance(schema.get("type"), str):
        schema["type"] = [schema["type"], "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(exclusive), bool):
            strict = schema.pop(exclusive)
            if strict and bound in schema:
                schema[exclusive] = schema.pop(bound)
    return schema
