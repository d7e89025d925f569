"""What changed between two versions of a document, field by field."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A field that is not what it was. What is not there is None.

    Attributes:
        path: the field's name, after those of the objects that it is in.
    """

    path: tuple[str, ...]
    old: Any
    new: Any


def differences(old: Json, new: Json) -> list[Difference]:
    """The fields in which two documents differ, in the order of their names.

    Objects are compared field by field; lists and all else as a whole.
    """
    return list(_differences((), old, new))


def _differences(path: tuple[str, ...], old: Json, new: Json) -> Iterator[Difference]:
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences((*path, name), before, after)
        elif before != after or type(before) is not type(after):  # True equals 1
            yield Difference(path=(*path, name), old=before, new=after)
