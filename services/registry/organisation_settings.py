"""The settings of the caller's organisation: what its endpoints and messages go by unless they say otherwise."""

from typing import cast

from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from libs.common.contracts.registry import (
    DEFAULT_PAYLOAD_DAYS,
    MaxAge,
    OrganisationDocument,
    PayloadDays,
    RegistryObject,
    Schedule,
    SchemaValidation,
    SecretReveal,
    Share,
    TimeoutMs,
    UnknownEventTypes,
)
from libs.common.postgres.registry import Changes
from services.registry import objects
from services.registry.answers import Answer, ok
from services.registry.calls import Call
from services.registry.fields import In, Out, RetrySchedule


class SettingsIn(In, frozen=True):
    """All settings; those left out have their default."""

    retry_schedule: RetrySchedule | None = None
    retry_client_errors: bool = False
    retry_jitter: Share | None = None
    timeout_ms: TimeoutMs | None = None
    max_age: MaxAge | None = None
    secret_reveal: SecretReveal = SecretReveal.ONCE
    endpoint_https_only: bool = True
    unknown_event_types: UnknownEventTypes = UnknownEventTypes.ALLOW
    schema_validation: SchemaValidation = SchemaValidation.OFF
    compat_headers: bool = False
    payload_retention_days: PayloadDays = DEFAULT_PAYLOAD_DAYS


class SettingsPatch(In, frozen=True):
    """What is to change."""

    retry_schedule: RetrySchedule | UnsetType | None = UNSET
    retry_client_errors: bool | UnsetType = UNSET
    retry_jitter: Share | UnsetType | None = UNSET
    timeout_ms: TimeoutMs | UnsetType | None = UNSET
    max_age: MaxAge | UnsetType | None = UNSET
    secret_reveal: SecretReveal | UnsetType = UNSET
    endpoint_https_only: bool | UnsetType = UNSET
    unknown_event_types: UnknownEventTypes | UnsetType = UNSET
    schema_validation: SchemaValidation | UnsetType = UNSET
    compat_headers: bool | UnsetType = UNSET
    payload_retention_days: PayloadDays | UnsetType = UNSET


class SettingsOut(Out):
    """The settings as the API shows them; what is null is the platform's default."""

    retry_schedule: Schedule | None
    retry_client_errors: bool
    retry_jitter: float | None
    timeout_ms: int | None
    max_age: float | None
    secret_reveal: SecretReveal
    endpoint_https_only: bool
    unknown_event_types: UnknownEventTypes
    schema_validation: SchemaValidation
    compat_headers: bool
    payload_retention_days: int


async def get(call: Call) -> Answer:
    """Get the organisation's settings."""
    return ok(_out(await objects.organisation_object(call)))


async def put(call: Call, changes: Changes) -> Answer:
    """Replace the organisation's settings."""
    return await _change(call, changes, call.content(SettingsIn))


async def patch(call: Call, changes: Changes) -> Answer:
    """Change some of the organisation's settings."""
    return await _change(call, changes, call.content(SettingsPatch))


async def _change(call: Call, changes: Changes, body: SettingsIn | SettingsPatch) -> Answer:
    found = await objects.organisation_object(call)
    said = {name: value for name, value in asdict(body).items() if value is not UNSET}
    document = replace(cast("OrganisationDocument", found.document), **said)
    return ok(_out(await changes.update(found, document, uid=found.uid)))


def _out(item: RegistryObject) -> SettingsOut:
    document = asdict(item.document)
    return SettingsOut(**{name: document[name] for name in SettingsOut.__struct_fields__})
