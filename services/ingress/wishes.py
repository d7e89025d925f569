"""What a producer's CloudEvent asks for beside its delivery, in extension attributes: as the publish API's fields."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from libs.common.contracts.messages import LONGEST_KEPT_HOURS
from services.ingress.message_in import LONGEST_DELAY, MAX_CHANNELS, MAX_TAGS, awaited

CHANNELS: Final = "hookledgerchannels"
TAGS: Final = "hookledgertags"
ORDERING_KEY: Final = "hookledgerorderkey"
DELIVER_AT: Final = "hookledgerdeliverat"
KEEP_HOURS: Final = "hookledgerkeephours"

_NAME: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,128}")
_KEY: Final = re.compile(r"[a-zA-Z0-9\-_.]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What was asked for; the fields are a message's."""

    channels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    ordering_key: str | None = None
    deliver_at: datetime | None = None
    keep_body: timedelta | None = None


NONE: Final = Wishes()


def read_wishes(extensions: Mapping[str, str], at: datetime) -> Wishes:
    """What the extension attributes of an event ask for at that time.

    Raises:
        ValueError: one of them cannot be read; the text says which, without its content.
    """
    if len(extensions) <= 1:  # nearly always the application alone
        return NONE
    key = extensions.get(ORDERING_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise ValueError(f"{ORDERING_KEY} is not 1 to 256 letters, digits, full stops, hyphens or underscores")
    return Wishes(
        channels=_names(extensions, CHANNELS, MAX_CHANNELS),
        tags=_names(extensions, TAGS, MAX_TAGS),
        ordering_key=key,
        deliver_at=_time(extensions.get(DELIVER_AT), at),
        keep_body=_hours(extensions.get(KEEP_HOURS)),
    )


def _names(extensions: Mapping[str, str], attribute: str, most: int) -> tuple[str, ...]:
    text = extensions.get(attribute)
    if text is None:
        return ()
    names = sorted({each.strip() for each in text.split(",")})
    if len(names) > most or not all(_NAME.fullmatch(name) for name in names):
        raise ValueError(f"{attribute} is not a list, by commas, of at most {most} names")
    return tuple(names)


def _time(text: str | None, at: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{DELIVER_AT} is not a time as RFC 3339 has it") from None
    if found.tzinfo is None:
        raise ValueError(f"{DELIVER_AT} has no offset from UTC")
    if found > at + LONGEST_DELAY:
        raise ValueError(f"{DELIVER_AT} is more than {LONGEST_DELAY.days} days ahead")
    return awaited(found)


def _hours(text: str | None) -> timedelta | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= LONGEST_KEPT_HOURS:
        raise ValueError(f"{KEEP_HOURS} is not a number of hours from 1 to {LONGEST_KEPT_HOURS}")
    return timedelta(hours=int(text))
