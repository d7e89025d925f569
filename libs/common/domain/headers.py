"""An endpoint's own headers: which may be sent with each attempt, and which of them hold a secret."""

import re
from typing import Final

MOST: Final = 50
LONGEST_NAME: Final = 128
LONGEST_VALUE: Final = 4096
LONGEST_IN_ALL: Final = 16 * 1024

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""Source: RFC 9110, section 5.6.2."""

_VALUE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
_OURS: Final = frozenset({
    "host", "content-length", "transfer-encoding", "connection", "cookie", "keep-alive", "te", "trailer", "upgrade",
    "expect", "proxy-connection", "proxy-authorization",
})  # fmt: skip
_OUR_PREFIXES: Final = ("webhook-", "svix-", "x-svix-", "x-amzn-", "x-webhook-")
_SENSITIVE: Final = re.compile("authorization|cookie|token|secret|api-?key|password|credential|signature|session")


def refusal(name: str, value: str) -> str | None:
    """Why an endpoint may not have this header, or None."""
    lower = name.lower()
    if len(name) > LONGEST_NAME or _TOKEN.fullmatch(name) is None:
        return f"a header's name is at most {LONGEST_NAME} letters, digits and hyphens"
    if lower in _OURS or lower.startswith(_OUR_PREFIXES):
        return "this header belongs to the connection or to the signature, and cannot be set"
    if len(value) > LONGEST_VALUE or _VALUE.fullmatch(value) is None:
        return (
            f"a header's value is at most {LONGEST_VALUE} printable ASCII characters, "
            "without control characters, and without spaces around it"
        )
    return None


def is_sensitive(name: str) -> bool:
    """Whether a header of that name usually holds a secret."""
    return _SENSITIVE.search(name.lower()) is not None
