"""What the registry's documents come to for those who deliver and verify: the domain's endpoints and schemes.

An endpoint's own settings go over those of its organisation, and those over the platform's.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import TypeVar, assert_never
from uuid import UUID

from libs.common.contracts.registry import (
    ApplicationDocument,
    EndpointDocument,
    Exponential,
    OnExhausted,
    OrganisationDocument,
    Preset,
    RegistryObject,
    Schedule,
    SourceDocument,
)
from libs.common.domain.endpoint import DEFAULT_MAX_INFLIGHT, DEFAULT_TIMEOUT, Endpoint, SigningKey
from libs.common.domain.providers.scheme import Scheme
from libs.common.domain.providers.settings import Settings, Verification
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
        app_max_inflight=application.max_inflight,
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
