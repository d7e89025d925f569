"""What checking a payload by a schema can cost, told from the schema alone.

A schema of a few hundred bytes can ask for 2^50 evaluations: `{"allOf": [{"$ref": "#/$defs/b"}, {"$ref":
"#/$defs/b"}]}`, and so on, doubles with each definition, and a recursive one with each level of the payload. The cost
of a schema is the number of evaluations, at most, on one path from the payload's root to a leaf. Times the payload's
size it bounds the work: an evaluation takes about 20 ns, a payload of n bytes has fewer than n paths.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from libs.common.contracts.strictjson import MAX_NESTING

MOST_COST: Final = 2048
_MOST_STEPS: Final = 200_000
_NAMED: Final = frozenset({"dependentSchemas", "dependencies", "patternProperties", "properties"})
"""Their members are names with a schema each, and the names may be those of keywords."""
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_CHILDREN: Final = (
    "patternProperties", "additionalProperties", "unevaluatedProperties", "propertyNames", "items", "additionalItems",
    "unevaluatedItems", "contains",
)  # fmt: skip
_UNIQUE_ITEMS_COST: Final = 20
_SEVERAL: Final = object()
_REPEAT: Final = re.compile(r"\{(\d{1,6})(?:,(\d{0,6}))?\}")

_Kind = TypeVar("_Kind", str, list[Any], dict[str, Any])

Path: TypeAlias = tuple[str | int, ...]


class BadSchemaError(ValueError):
    """A document is no schema that is taken here. Whoever wrote it erred.

    Args:
        reason: what is wrong.
        path: where, in the schema.
    """

    def __init__(self, reason: str, path: Path = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


class Cost:
    """The cost of a schema.

    Args:
        schema: a valid one, whose references all begin with `#`.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._root = schema
        self._anchors: dict[str, Any] = {}
        self._known: dict[tuple[int, int], int] = {}
        self._active: set[tuple[int, int]] = set()
        for node in _objects(schema):
            for keyword in ("$anchor", "$dynamicAnchor"):
                if isinstance(node.get(keyword), str):
                    self._anchors[node[keyword]] = node if node[keyword] not in self._anchors else _SEVERAL

    def total(self) -> int:
        """The cost.

        Raises:
            BadSchemaError: it is more than `MOST_COST`, or a reference leads nowhere, or round in a circle.
        """
        try:
            return self._of(self._root, MAX_NESTING)
        except RecursionError:
            raise BadSchemaError("its references are nested too deeply") from None

    def _of(self, node: Any, levels: int) -> int:
        """The cost of a subschema on a value that is nested so many levels deep."""
        if not isinstance(node, dict):
            return 1  # true, false; or names, under `dependencies`
        place = id(node), levels
        if place in self._known:
            return self._known[place]
        if place in self._active:
            raise BadSchemaError("a reference leads back to itself without going deeper into the payload")
        if len(self._known) > _MOST_STEPS:
            raise BadSchemaError("it is too large")
        self._active.add(place)
        cost = _own(node)
        cost += sum(self._of(each, levels) for keyword in _IN_PLACE for each in _subschemas(node, keyword))
        references = (_typed(node, key, str, "string") for key in ("$ref", "$dynamicRef") if key in node)
        cost += sum(self._of(self._target(reference), levels) for reference in references)
        if levels:
            cost += sum(self._of(each, levels - 1) for keyword in _CHILDREN for each in _subschemas(node, keyword))
            # A value is under one name, or at one place, only; but each name is looked for, in an empty object as well.
            for keyword in ("properties", "prefixItems"):
                within = [self._of(each, levels - 1) for each in _subschemas(node, keyword)]
                cost += max(len(within), *within, 0)
        if "unevaluatedProperties" in node or "unevaluatedItems" in node:
            cost *= 2  # what was evaluated is found by evaluating it again
        if cost > MOST_COST:
            raise BadSchemaError("checking it would take too long: too many subschemas apply to the same value")
        self._active.discard(place)
        self._known[place] = cost
        return cost

    def _target(self, reference: str) -> Any:
        if reference[1:] in self._anchors:
            found: Any = self._anchors[reference[1:]]
            if found is _SEVERAL:
                raise BadSchemaError("a reference leads to an anchor that stands in several places")
            return found
        found = self._root
        for part in reference[1:].split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(name)] if isinstance(found, list) else found[name]
            except (LookupError, ValueError, TypeError):
                raise BadSchemaError("a reference leads to a part that does not exist") from None
        return found


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def _subschemas(node: dict[str, Any], keyword: str) -> Iterable[Any]:
    """The schemas under a keyword: one, a list of them, or one for each name."""
    if keyword in _NAMED:
        return _typed(node, keyword, dict, "object").values()
    value = node.get(keyword, ())
    return value if isinstance(value, list | tuple) else (value,)


def _own(node: dict[str, Any]) -> int:
    cost = max(len(node), 1) + len(_typed(node, "required", list, "array")) + len(_typed(node, "enum", list, "array"))
    for keyword in ("dependentRequired", "dependentSchemas", "dependencies"):
        dependent = _typed(node, keyword, dict, "object")
        cost += len(dependent) + sum(len(each) for each in dependent.values() if isinstance(each, list))
    cost += _UNIQUE_ITEMS_COST if node.get("uniqueItems") else 0
    patterns = _typed(node, "pattern", str, "string"), *_typed(node, "patternProperties", dict, "object")
    return cost + sum(map(pattern_cost, patterns))


def _typed(node: dict[str, Any], keyword: str, kind: type[_Kind], called: str) -> _Kind:
    """The value of a keyword, an empty one where it is not there.

    Raises:
        BadSchemaError: it is of another type. The library judges only what it would ever check a payload by.
    """
    value = node.get(keyword, kind())
    if not isinstance(value, kind):
        raise BadSchemaError(f'"{keyword}" is not of type "{called}"')
    return value


def pattern_cost(pattern: str) -> int:
    """What a regular expression costs for each character: its matching is linear, and not free.

    Measured: 85 evaluations' time for 40 states, 280 for 400, where no automaton of bounded size exists.
    """
    states = _states(pattern)
    return min(2 * states, 60 + states)


def _states(pattern: str) -> int:
    totals, last, position = [0], 0, 0
    while position < len(pattern):
        character = pattern[position]
        repeat = _REPEAT.match(pattern, position)
        if repeat and last:
            times = int(repeat[2] or repeat[1])
            totals[-1] += last * max(times - 1, 0)
            last *= max(times, 1)
            position = repeat.end()
            continue
        if character == "(":
            totals.append(0)
        elif character == ")" and len(totals) > 1:
            last = totals.pop()
            totals[-1] += last
        else:
            last = 4 if character == "\\" else 1
            totals[-1] += last
            if character == "[":
                end = pattern.find("]", position + 2)
                position = end if end > 0 else position
            position += character == "\\"
        position += 1
    return sum(totals)
