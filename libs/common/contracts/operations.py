"""What an operation of the HTTP API is: its path, who may call it, what it takes and what it answers.

One declaration serves three purposes: routes and access rules are made from it, bodies and queries are read by it, and
`/openapi.json` shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec

from libs.common.contracts.registry import Scope

API: Final = "/api/v1"
Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Capability(StrEnum):
    """What an application token may do, by the names that the reference has for it."""

    VIEW = "ViewBase"
    VIEW_SECRET = "ViewEndpointSecret"  # noqa: S105  a name
    MANAGE_SECRET = "ManageEndpointSecret"  # noqa: S105  a name
    MANAGE_ENDPOINT = "ManageEndpoint"
    CREATE_ATTEMPTS = "CreateAttempts"
    MANAGE_TRANSFORMATIONS = "ManageTransformations"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A route's rule. None: no API key, or no application token, may call it."""

    scope: Scope | None
    capability: Capability | None = None


ANYONE: Final = None
"""The access of what asks for no credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameter:
    """A parameter of the query, as the document has it.

    Attributes:
        schema: its JSON Schema; an array's values come by commas, repeated, or under `name[]`.
        description: meaning and units, in a phrase.
    """

    name: str
    schema: Mapping[str, Any]
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        path: below `API`, or from the root with `root`.
        id: dotted, such as `v1.event-type.list`; its second part names the resource.
        summary: what it does, in a sentence; the document's `description` is what else there is to say.
        access: who may call.
        body: what the request's body is parsed as; None for no body.
        body_required: whether it must be there. Where not, it is what `body` makes of no fields.
        query: the parameters that it reads.
        answers: what it answers when it succeeds, by status; None for an empty body, str for plain text;
            a tuple for one or another of them.
        refusals: statuses of refusals beyond those that every operation of its kind has.
        repeatable: whether done twice it is done once, so that a POST needs no `Idempotency-Key`.
    """

    method: str
    path: str
    id: str
    summary: str
    access: Access | None
    answers: Mapping[int, Any]
    description: str = ""
    body: Any = None
    body_required: bool = True
    query: tuple[QueryParameter, ...] = ()
    refusals: tuple[int, ...] = field(default=())
    root: bool = False
    repeatable: bool = False

    @property
    def full_path(self) -> str:
        """From the root."""
        return self.path if self.root else API + self.path

    @property
    def tag(self) -> str:
        """The resource, in words: `Event Type`."""
        return self.id.split(".")[1].replace("-", " ").title()

    @property
    def idempotent_by_key(self) -> bool:
        """Whether it takes an `Idempotency-Key`: every POST of the API that is not repeatable."""
        return self.method == "POST" and not self.root and not self.repeatable


class ErrorOut(msgspec.Struct):
    """A refusal: `code` for programs, `detail` for people."""

    code: str
    detail: str


class ErrorItem(msgspec.Struct):
    """One thing that does not validate, with its place: `["body", "channels", 1]`."""

    loc: list[str | int]
    msg: str
    type: str


class ValidationErrorOut(msgspec.Struct):
    """What does not validate, and where."""

    code: str
    detail: list[ErrorItem]
