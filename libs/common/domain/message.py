"""Messages: accepted events with their exact bytes."""

import re
from datetime import datetime
from typing import Final
from uuid import UUID

from msgspec import Struct

from libs.common.domain.facts import Origin

MAX_BODY_BYTES: Final = 1024 * 1024
JSON: Final = "application/json"
CONTENT_TYPE: Final = re.compile(r"[!-~]+/[ -~]{1,255}")
"""What a payload's type may look like, as a whole: it is sent as a header."""


class Message(Struct, frozen=True, kw_only=True, gc=False):
    """One accepted event. `body` is what came, byte for byte; `registry_version` is the fence for its fan-out.

    Attributes:
        tags: by which its producer finds it again.
        ordering_key: what its producer says belongs in one order.
        deliver_at: before which nothing of it is sent.
        erase_body_at: from which on its body is erased, where its producer said so.
        erased: the body is no longer there, so that nothing can be sent.
    """

    id: UUID
    org: UUID
    app: UUID
    event_type: str
    body: bytes
    accepted_at: datetime
    registry_version: int
    origin: Origin
    content_type: str = JSON
    channels: frozenset[str] = frozenset()
    event_id: str | None = None
    source: UUID | None = None
    tags: frozenset[str] = frozenset()
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    erase_body_at: datetime | None = None
    publish: bool = False
    erased: bool = False

    def __repr__(self) -> str:
        """Without the body, which is nobody's to log."""
        return f"Message(id={self.id!r}, app={self.app!r}, event_type={self.event_type!r})"
