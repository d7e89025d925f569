"""Facts of the registry as the change history shows them: no hash of a key, and of a secret its fingerprint only."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import msgspec

from libs.common.contracts.registry import AnyDocument, KeyReference
from libs.common.domain import ids
from libs.common.domain.differences import Difference, differences
from libs.common.domain.ids import Prefix

_HIDDEN: Final = frozenset({"hash"})


def changes(
    old: AnyDocument | None, new: AnyDocument, *, old_uid: str | None = None, new_uid: str | None = None
) -> list[Difference]:
    """What a fact changed: from the document before it, None at its creation, to the one after it.

    At a creation it is what differs from the defaults.
    """
    before = _shown(old) if old is not None else _unset(new)
    return differences({"uid": old_uid} | before, {"uid": new_uid} | _shown(new))


def _shown(document: AnyDocument) -> dict[str, Any]:
    """A document by its fields, defaults included."""
    return {
        field.encode_name: _json(field.name, getattr(document, field.name))
        for field in msgspec.structs.fields(document)
        if field.name not in _HIDDEN
    }


def _unset(document: AnyDocument) -> dict[str, Any]:
    """The fields that have their default, as if they had been so before: a creation did not change them."""
    shown = _shown(document)
    told: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(document))
    return {name: value for name, value in shown.items() if name not in told}


def _json(name: str, value: Any) -> Any:
    """A value as JSON has it; a secret by its fingerprint, wherever it stands."""
    match value:
        case KeyReference():
            shown = {"fingerprint": value.fingerprint}
            expiry = value.expires_at
            return shown if expiry is None else shown | {"expiresAt": msgspec.to_builtins(expiry)}
        case tuple():
            return [_json(name, each) for each in value]
        case dict():
            return {key: _json(name, each) for key, each in value.items()}
        case UUID() if name == "replaces":
            return ids.encode(Prefix.API_KEY, value)
        case _:
            return msgspec.json.decode(msgspec.json.encode(value))
