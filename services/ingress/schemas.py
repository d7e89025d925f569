"""Payloads against the schemas of their event types, as the organisation asks for."""

from typing import Any, Final
from uuid import UUID

import msgspec

from libs.common.contracts.registry import (
    EventTypeDocument,
    Kind,
    OrganisationDocument,
    RegistryObject,
    SchemaValidation,
)
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime.http import ApiError
from libs.common.runtime.logs import logger
from libs.common.runtime.schemas.cost import BadSchemaError
from libs.common.runtime.schemas.payload import PayloadSchema, Violation
from services.ingress.candidate import FAULTLESS, Candidate, Finding

_LOG: Final = logger("schemas")


class Schemas:
    """The newest schema of each event type, compiled when a message first needs it and kept until the type changes."""

    def __init__(self, snapshot: RegistrySnapshot) -> None:
        self._snapshot = snapshot
        self._compiled: dict[UUID, tuple[int, PayloadSchema | None]] = {}

    def check(self, candidate: Candidate) -> Finding:
        """Judge a payload by the snapshot as it is."""
        organisation = self._snapshot.get(Kind.ORGANISATION, candidate.org)
        if organisation is None:
            return FAULTLESS
        assert isinstance(organisation.document, OrganisationDocument)
        asked = organisation.document.schema_validation
        if asked is SchemaValidation.OFF:
            return FAULTLESS
        event_type = self._snapshot.find(Kind.EVENT_TYPE, candidate.org, candidate.event_type)
        schema = None if event_type is None else self._schema(event_type)
        violations = () if schema is None else schema.violations(candidate.body)
        if not violations:
            return FAULTLESS
        return Finding(enforced=asked is SchemaValidation.ENFORCE, violations=violations)

    def _schema(self, event_type: RegistryObject) -> PayloadSchema | None:
        kept = self._compiled.get(event_type.id)
        if kept is None or kept[0] != event_type.version:
            kept = self._compiled[event_type.id] = event_type.version, _compile(event_type)
        return kept[1]


def _compile(event_type: RegistryObject) -> PayloadSchema | None:
    document = event_type.document
    assert isinstance(document, EventTypeDocument)
    if not document.schemas or document.archived:
        return None
    try:
        return PayloadSchema(msgspec.json.decode(document.schemas[newest(document.schemas)]))
    except BadSchemaError as error:
        # Taken by an earlier version, which judged schemas less strictly: it cannot be mended by who publishes.
        _LOG.warning("schema.unusable", event_type=str(event_type.id), reason=str(error))
        return None


def newest(versions: dict[str, Any]) -> str:
    """The version that counts: the highest number; without numbers the last in the order of the alphabet."""
    return max(versions, key=lambda text: (text.isdecimal(), int(text) if text.isdecimal() else 0, text))


def refusal(violations: tuple[Violation, ...], *place: str) -> ApiError:
    """A 422 that lists the violations; `place` is where the payload stands in the request."""
    detail = [{"loc": [*place, *each.path], "msg": each.message, "type": "value_error.schema"} for each in violations]
    return ApiError(422, detail)


def told(violations: tuple[Violation, ...]) -> str:
    """The violations in a line, for operators."""
    return "; ".join(map(str, violations))
