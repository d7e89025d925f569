"""The registry's documents: what `registry_object.data` holds for each kind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

import msgspec

from libs.common.domain.endpoint import Profile
from libs.common.domain.job import Task
from libs.common.domain.providers.settings import Algorithm, Encoding
from libs.common.domain.retry import MOST_RETRIES


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
    retries: Annotated[int, msgspec.Meta(ge=1, le=MOST_RETRIES)]


Schedule = tuple[Seconds, ...] | Preset | Exponential
"""How a retry schedule is written: its waits in seconds, a name, or the rule by which they grow."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
TimeoutMs = Annotated[int, msgspec.Meta(ge=1000, le=30_000)]
MaxInflight = Annotated[int, msgspec.Meta(ge=1, le=1000)]
MaxAppInflight = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
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
    max_inflight: MaxAppInflight | None = None
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
