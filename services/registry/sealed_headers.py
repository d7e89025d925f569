"""An endpoint's own headers in its document: checked, and the sensitive ones sealed."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec.structs import replace

from libs.common.contracts.registry import EndpointDocument, KeyReference
from libs.common.domain import headers as rules
from libs.common.runtime.http import invalid
from services.registry.secrets import Sealer

_PLACE: Final = ("body", "headers")


async def with_headers(
    document: EndpointDocument, given: Mapping[str, str | None], sensitive: set[str], seal: Sealer
) -> EndpointDocument:
    """The document with these headers added, the sensitive ones sealed.

    Raises:
        ApiError: 422.
    """
    checked = _checked(given, {*document.headers, *document.sealed_headers})
    if checked and _size(checked) + await _size_of(document, seal) > rules.LONGEST_IN_ALL:
        raise invalid([*_PLACE], f"headers have at most {rules.LONGEST_IN_ALL} bytes in all")
    plain: dict[str, str] = {}
    sealed: dict[str, KeyReference] = {}
    for name, value in checked.items():
        if rules.is_sensitive(name) or name.lower() in sensitive:
            sealed[name] = await seal(value)
        else:
            plain[name] = value
    return replace(
        document,
        headers={**document.headers, **plain},
        sealed_headers={**document.sealed_headers, **sealed},
    )


def _checked(given: Mapping[str, Any], others: set[str]) -> dict[str, str]:
    checked: dict[str, str] = {}
    taken: set[str] = set()
    for name, value in given.items():
        if value is None:
            continue
        why = rules.refusal(name, value)
        if why is None and name.lower() in taken:
            why = "the header is given twice; its name may be written in any case"
        if why is not None:
            raise invalid([*_PLACE, name[: rules.LONGEST_NAME]], why)
        taken.add(name.lower())
        checked[name] = value
    if len(checked) + len(others) > rules.MOST:
        raise invalid([*_PLACE], f"an endpoint has at most {rules.MOST} headers")
    return checked


async def _size_of(document: EndpointDocument, seal: Sealer) -> int:
    """The bytes of the headers that an endpoint has already."""
    sealed = document.sealed_headers
    values = await seal.size(sealed.values()) if sealed else 0
    return _size(document.headers) + sum(map(len, sealed)) + values


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(name) + len(value) for name, value in headers.items())
