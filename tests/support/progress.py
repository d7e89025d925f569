"""Progress that nobody wants to know."""

from typing import Final

from services.admin.progress import Lines


def _unheard(_line: str) -> None:
    pass


UNHEARD: Final = Lines("", _unheard)
