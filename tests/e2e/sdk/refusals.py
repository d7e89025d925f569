"""What the SDK raises when it is refused, in the two forms of the reference: HttpError and HTTPValidationError."""

from collections.abc import Awaitable

import pytest
from svix.exceptions import HttpError, HTTPValidationError


async def refused(asked: Awaitable[object], status: int) -> str:
    """The code of the refusal with that status, which says in words what is wrong."""
    with pytest.raises(HttpError) as refusal:
        await asked
    assert refusal.value.status_code == status
    assert isinstance(refusal.value.detail, str)
    assert refusal.value.detail
    return refusal.value.code


async def missing(asked: Awaitable[object]) -> bool:
    """Whether what is asked for is 404."""
    return await refused(asked, 404) == "not_found"


async def invalid(asked: Awaitable[object]) -> list[list[str]]:
    """The places that a 422 finds wrong, each with a message and a type."""
    with pytest.raises(HTTPValidationError) as refusal:
        await asked
    assert refusal.value.status_code == 422
    assert all(error.msg and error.type for error in refusal.value.detail)
    return [error.loc for error in refusal.value.detail]
