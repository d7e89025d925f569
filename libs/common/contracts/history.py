"""Facts of the registry as the change history shows them: no hash of a key, and of a secret its fingerprint only."""

from collections.abc import Mapping
from typing import Any, Final

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
    match name, value:
        case "keys", tuple():
            return [_key(key) for key in value]
        case "replaces", key if key is not None:
            return ids.encode(Prefix.API_KEY, key)
        case _:
            return msgspec.json.decode(msgspec.json.encode(value))


def _key(key: KeyReference) -> dict[str, Any]:
    shown = {"fingerprint": key.fingerprint}
    return shown if key.expires_at is None else shown | {"expiresAt": msgspec.to_builtins(key.expires_at)}
