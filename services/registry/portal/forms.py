"""The fields of an HTML form, as browsers send them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from aiohttp import web

from libs.common.runtime.http import ApiError

MOST_FIELDS: Final = 1000


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds; a field that did not come is empty."""

    fields: Mapping[str, Sequence[str]]

    def text(self, name: str) -> str:
        """The field's text."""
        return self.fields.get(name, ("",))[0].strip()

    @property
    def once(self) -> str:
        """The name under which the page that held the form asks for its effect: two clicks are one order."""
        text = self.text("once")
        return text if text.isascii() and text.isalnum() else ""

    def words(self, name: str) -> list[str]:
        """The words of all fields of that name, each once, as they came first."""
        return list(dict.fromkeys(" ".join(self.fields.get(name, ())).split()))


async def read_form(request: web.Request) -> Form:
    """The form in the body.

    Raises:
        ApiError: 422, it has more than `MOST_FIELDS` fields.
    """
    text = (await request.read()).decode("utf-8", "replace")
    try:
        return Form(parse_qs(text, max_num_fields=MOST_FIELDS))
    except ValueError:
        raise ApiError(422, f"the form has more than {MOST_FIELDS} fields") from None
