"""YAML as we accept it from outside: the part of it that is JSON in other clothes.

Anchors and aliases (a few lines can stand for gigabytes), tags and deep nesting are refused before anything is built.
"""

from typing import Any, Final

import yaml

from libs.common.contracts.strictjson import MAX_NESTING

_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"


class BadYamlError(ValueError):
    """The text is not YAML, or not YAML that is taken here. The sender erred."""


class _Loader(yaml.CSafeLoader):
    """Safe, and dates stay the texts that they are in JSON."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _TIMESTAMP]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def parse(text: str) -> Any:
    """The document that `text` spells.

    Raises:
        BadYamlError: what is wrong with it, and where.
    """
    try:
        _check(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a safe loader's subclass
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise BadYamlError(f"not valid YAML{where}: {getattr(error, 'problem', None) or error}") from None


def _check(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise BadYamlError("it has an alias (*name): write out what it stands for")
        if getattr(event, "tag", None) is not None and not _plain(event):
            raise BadYamlError("it has a tag (!name), which is not taken")
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_NESTING:
                raise BadYamlError(f"nested deeper than {MAX_NESTING}")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _plain(event: Any) -> bool:
    return isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)) and bool(event.implicit)
