"""The senders there are, by the names that the setting has for them."""

from collections.abc import Mapping
from typing import Final

from services.dispatcher.aiohttp_sender import AiohttpSender
from services.dispatcher.lean_sender import LeanSender
from services.dispatcher.sender import SenderName

SENDERS: Final[Mapping[SenderName, type[LeanSender] | type[AiohttpSender]]] = {
    "lean": LeanSender,
    "aiohttp": AiohttpSender,
}
