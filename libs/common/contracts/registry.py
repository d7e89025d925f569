"""The registry's documents: what `registry_object.data` holds for each kind, and how it becomes the domain's."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, TypeVar, assert_never
from uuid import UUID

import msgspec

from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT, DEFAULT_TIMEOUT, Endpoint, Profile, SigningKey
from libs.common.domain.job import Task
from libs.common.domain.providers.scheme import Scheme
from libs.common.domain.providers.settings import Algorithm, Encoding, Settings, Verification
from libs.common.domain.providers.table import Provider, scheme_of
from libs.common.domain.retry import (
    JITTER_SHARE,
    LONGEST_LIFE,
    QUICK_SCHEDULE,
    STANDARD_SCHEDULE,
    RetryPolicy,
    exponential,
)

Value = TypeVar("Value")


class Kind(StrEnum):
    """The kinds of registry object."""

    ORGANISATION = "organisation"
    APPLICATION = "application"
    ENDPOINT = "endpoint"
    SOURCE = "source"
    EVENT_TYPE = "event_type"
    API_KEY = "api_key"
    JOB = "job"
    ERASURE = "erasure"


REQUESTS: Final = frozenset({Kind.JOB, Kind.ERASURE})
"""Kinds that record what a person asked for: they configure nothing, and no snapshot holds them."""


class Scope(StrEnum):
    """What an API key may do."""

    ADMIN = "admin"
    PUBLISH = "publish"
    READ = "read"


class SecretReveal(StrEnum):
    """Whether an endpoint's secret can be read after its creation."""

    ONCE = "once"
    ALWAYS = "always"


class UnknownEventTypes(StrEnum):
    """Whether an endpoint may name event types that do not exist."""

    ALLOW = "allow"
    REJECT = "reject"


class SchemaValidation(StrEnum):
    """What becomes of a message that its event type's schema does not allow."""

    OFF = "off"
    WARN = "warn"
    ENFORCE = "enforce"


class Document(msgspec.Struct, kw_only=True, frozen=True, rename="camel", omit_defaults=True):
    """Base of all documents: camel case as the API has it, defaults left out."""


class KeyReference(Document, frozen=True):
    """A secret of an endpoint or a source, by id and fingerprint; the sealed bytes stand in `secret`."""

    id: UUID
    fingerprint: str
    expires_at: datetime | None = None
    public_key: str | None = None
    """Of a pair of keys (ed25519): the half that receivers hold, `whpk_…`."""


Seconds = Annotated[float, msgspec.Meta(ge=0, le=30 * 24 * 3600)]
PayloadDays = Annotated[int, msgspec.Meta(ge=1, le=90)]
DEFAULT_PAYLOAD_DAYS: Final = 90


class Preset(StrEnum):
    """Retry schedules that have a name."""

    STANDARD = "standard"
    QUICK = "quick"


class OnExhausted(StrEnum):
    """What becomes of an ordered lane whose head is exhausted or refused: it goes on, or waits for an operator."""

    RELEASE = "release"
    HOLD = "hold"


class Exponential(msgspec.Struct, kw_only=True, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A retry schedule whose waits grow by `factor`, from `initial` up to `max`, in seconds."""

    initial: Annotated[float, msgspec.Meta(ge=0.1, le=30 * 24 * 3600)]
    factor: Annotated[float, msgspec.Meta(ge=1, le=100)] = 2
    max: Annotated[float, msgspec.Meta(ge=0.1, le=30 * 24 * 3600)] = 10 * 3600
    retries: Annotated[int, msgspec.Meta(ge=1, le=100)]


Schedule = tuple[Seconds, ...] | Preset | Exponential
"""How a retry schedule is written: its waits in seconds, a name, or the rule by which they grow."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
TimeoutMs = Annotated[int, msgspec.Meta(ge=1000, le=30_000)]
MaxInflight = Annotated[int, msgspec.Meta(ge=1, le=1000)]
MaxAge = Annotated[float, msgspec.Meta(ge=60, le=30 * 24 * 3600)]


class OrganisationDocument(Document, frozen=True):
    """An organisation and its settings. Its `uid` is the broker user that publishes for it."""

    name: str
    secret_reveal: SecretReveal = SecretReveal.ONCE
    endpoint_https_only: bool = True
    retry_schedule: Schedule | None = None
    retry_client_errors: bool = False
    retry_jitter: Share | None = None
    timeout_ms: TimeoutMs | None = None
    max_age: MaxAge | None = None
    unknown_event_types: UnknownEventTypes = UnknownEventTypes.ALLOW
    schema_validation: SchemaValidation = SchemaValidation.OFF
    compat_headers: bool = False
    payload_retention_days: PayloadDays = DEFAULT_PAYLOAD_DAYS


class ApplicationDocument(Document, frozen=True):
    """A tenant."""

    name: str
    metadata: dict[str, str] = {}
    throttle_rate: int | None = None
    accept_rate: int | None = None
    publish_accepted: bool = False


class FailingDocument(Document, frozen=True):
    """Since when nothing but failures came back, and the configuration that met with them."""

    since: datetime
    config_version: int


class TransformationDocument(Document, frozen=True):
    """An expression whose result is sent in place of the payload, while it is enabled."""

    expression: str
    enabled: bool = True


class EndpointDocument(Document, frozen=True):
    """A receiver."""

    url: str
    description: str = ""
    disabled: bool = False
    event_types: tuple[str, ...] | None = None
    channels: tuple[str, ...] | None = None
    filter: str | None = None
    transformation: TransformationDocument | None = None
    metadata: dict[str, str] = {}
    throttle_rate: int | None = None
    max_inflight: MaxInflight | None = None
    profile: Profile = Profile.STANDARD
    retry_schedule: Schedule | None = None
    retry_client_errors: bool | None = None
    retry_jitter: Share | None = None
    timeout_ms: int | None = None
    max_age: MaxAge | None = None
    ordered: bool = False
    on_exhausted: OnExhausted = OnExhausted.RELEASE
    keys: tuple[KeyReference, ...] = ()
    failing: FailingDocument | None = None
    headers: dict[str, str] = {}
    sealed_headers: dict[str, KeyReference] = {}

    @property
    def sealed(self) -> tuple[KeyReference, ...]:
        """All that stands sealed for it: its secrets, and the values of its sensitive headers."""
        return (*self.keys, *self.sealed_headers.values())


class VerificationDocument(Document, frozen=True):
    """The domain's `Verification`, as the API has it."""

    header: str | None = None
    prefix: str = ""
    algorithm: Algorithm = Algorithm.SHA256
    encoding: Encoding = Encoding.HEX
    template: str = "{body}"
    timestamp_header: str | None = None
    tolerance_seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 300
    event_type: str | None = None
    event_type_header: str | None = None
    event_type_field: str | None = None
    event_id_header: str | None = None
    event_id_field: str | None = None
    challenge_parameter: str | None = None


class SourceDocument(Document, frozen=True):
    """An inbound sender. `provider` is one of the domain's providers; the newest key comes first."""

    name: str
    provider: str
    metadata: dict[str, str] = {}
    publish_accepted: bool = False
    public_url: str | None = None
    verification: VerificationDocument | None = None
    keys: tuple[KeyReference, ...] = ()


class EventTypeDocument(Document, frozen=True):
    """A dotted name that messages carry. The object's `uid` is the name."""

    description: str = ""
    archived: bool = False
    deprecated: bool = False
    feature_flag: str | None = None
    """As it was written before there could be several."""
    feature_flags: tuple[str, ...] | None = None
    group_name: str | None = None
    schemas: dict[str, msgspec.Raw] | None = None


class ApiKeyDocument(Document, frozen=True):
    """A key: its SHA-256 in hex, what it may do, until when, and the key in whose place it came."""

    hash: str
    name: str = ""
    scopes: tuple[Scope, ...] = ()
    expires_at: datetime | None = None
    replaces: UUID | None = None


class JobDocument(Document, frozen=True):
    """What is to be sent once more to an endpoint: one message, or the messages of a time (`until` excluded).

    `disabled` are the spans of the registry's versions in which the endpoint was disabled.
    """

    task: Task
    endpoint: UUID
    message: UUID | None = None
    since: datetime | None = None
    until: datetime | None = None
    event_types: tuple[str, ...] | None = None
    only_failed: bool = False
    disabled: tuple[tuple[int, int], ...] = ()
    cancelled: bool = False


class ErasureDocument(Document, frozen=True):
    """That a message's payload was erased, or what an attempt brought back."""

    message: UUID
    attempt: UUID | None = None


AnyDocument = (
    OrganisationDocument
    | ApplicationDocument
    | EndpointDocument
    | SourceDocument
    | EventTypeDocument
    | ApiKeyDocument
    | JobDocument
    | ErasureDocument
)

DOCUMENTS: Final[Mapping[Kind, type[AnyDocument]]] = {
    Kind.ORGANISATION: OrganisationDocument,
    Kind.APPLICATION: ApplicationDocument,
    Kind.ENDPOINT: EndpointDocument,
    Kind.SOURCE: SourceDocument,
    Kind.EVENT_TYPE: EventTypeDocument,
    Kind.API_KEY: ApiKeyDocument,
    Kind.JOB: JobDocument,
    Kind.ERASURE: ErasureDocument,
}
_DECODERS: Final = {kind: msgspec.json.Decoder(document) for kind, document in DOCUMENTS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryObject:
    """A row of `registry_object`."""

    id: UUID
    kind: Kind
    org: UUID
    app: UUID | None
    uid: str | None
    version: int
    registry_version: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    document: AnyDocument = field(repr=False)


def encode(document: AnyDocument) -> str:
    """The JSON text of a document, for a `jsonb` column."""
    return msgspec.json.encode(document).decode()


def decode(kind: Kind, data: str | bytes) -> AnyDocument:
    """The document of a `jsonb` column."""
    return _DECODERS[kind].decode(data)


def schedule(said: Schedule | None) -> tuple[timedelta, ...]:
    """A retry schedule as the domain has it."""
    match said:
        case None | Preset.STANDARD:
            return STANDARD_SCHEDULE
        case Preset.QUICK:
            return QUICK_SCHEDULE
        case Exponential(initial=first, factor=factor, max=most, retries=retries):
            return exponential(
                first=timedelta(seconds=first), factor=factor, most=timedelta(seconds=most), retries=retries
            )
        case tuple():
            return tuple(timedelta(seconds=value) for value in said)
        case _:
            assert_never(said)


def _retry_policy(document: EndpointDocument, organisation: OrganisationDocument) -> RetryPolicy:
    client_errors = _first(document.retry_client_errors, organisation.retry_client_errors)
    jitter = _first(document.retry_jitter, organisation.retry_jitter)
    max_age = _first(document.max_age, organisation.max_age)
    return RetryPolicy(
        schedule=schedule(organisation.retry_schedule if document.retry_schedule is None else document.retry_schedule),
        retry_client_errors=bool(client_errors),
        jitter_share=JITTER_SHARE if jitter is None else jitter,
        max_age=LONGEST_LIFE if max_age is None else timedelta(seconds=max_age),
        holds=document.ordered and document.on_exhausted is OnExhausted.HOLD,
    )


def _first(own: Value | None, default: Value | None) -> Value | None:
    return own if own is not None else default


def config_version(row: RegistryObject) -> int:
    """Of an endpoint: the version of the last change that somebody made. To be called failing changes nothing."""
    document = row.document
    assert isinstance(document, EndpointDocument)
    return document.failing.config_version if document.failing is not None else row.version


def endpoint(
    row: RegistryObject,
    organisation: OrganisationDocument,
    application: ApplicationDocument,
    secrets: Mapping[UUID, str],
) -> Endpoint:
    """The domain's endpoint: settings of the endpoint over those of its organisation over the platform's.

    Args:
        row: an object of kind endpoint.
        organisation: its organisation's document.
        application: its application's document.
        secrets: opened secrets by key id; keys without theirs do not sign.
    """
    document = row.document
    assert isinstance(document, EndpointDocument)
    assert row.app is not None
    timeout_ms = _first(document.timeout_ms, organisation.timeout_ms)
    keys = tuple(
        SigningKey(id=key.id, secret=secrets[key.id], expires_at=key.expires_at)
        for key in document.keys
        if key.id in secrets
    )
    return Endpoint(
        id=row.id,
        app=row.app,
        version=config_version(row),
        url=document.url,
        enabled=not document.disabled and row.deleted_at is None,
        event_types=frozenset(document.event_types) if document.event_types is not None else None,
        channels=frozenset(document.channels) if document.channels is not None else None,
        filter=document.filter,
        transformation=(
            document.transformation.expression if document.transformation and document.transformation.enabled else None
        ),
        profile=document.profile,
        keys=keys,
        retry=_retry_policy(document, organisation),
        timeout=timedelta(milliseconds=timeout_ms) if timeout_ms else DEFAULT_TIMEOUT,
        max_inflight=document.max_inflight or DEFAULT_MAX_INFLIGHT,
        ordered=document.ordered,
        throttle_rate=document.throttle_rate,
        app_throttle_rate=application.throttle_rate,
        compat_headers=organisation.compat_headers,
        headers=(
            *document.headers.items(),
            *((name, secrets[key.id]) for name, key in document.sealed_headers.items() if key.id in secrets),
        ),
    )


def scheme(document: SourceDocument) -> Scheme:
    """How requests to a source are judged and read.

    Raises:
        SettingsError: its settings do not fit its provider.
    """
    said = document.verification
    verification = None
    if said is not None:
        verification = Verification(
            header=said.header,
            prefix=said.prefix,
            algorithm=said.algorithm,
            encoding=said.encoding,
            template=said.template,
            timestamp_header=said.timestamp_header,
            tolerance=timedelta(seconds=said.tolerance_seconds),
            event_type=said.event_type,
            event_type_header=said.event_type_header,
            event_type_field=said.event_type_field,
            event_id_header=said.event_id_header,
            event_id_field=said.event_id_field,
            challenge_parameter=said.challenge_parameter,
        )
    return scheme_of(Provider(document.provider), Settings(public_url=document.public_url, verification=verification))
