"""What a source's request is taken for: believed or not, by the source's scheme and secrets, then read."""

from datetime import datetime
from typing import Any, Final

from libs.common.contracts import configuration, strictjson
from libs.common.contracts.registry import RegistryObject, SourceDocument
from libs.common.domain.providers.scheme import (
    Challenge,
    Identity,
    Request,
    Scheme,
    Trust,
    Unreadable,
    UnreadableReason,
)
from libs.common.domain.signatures.verdict import RefusalReason, Refused
from libs.common.postgres.snapshot import RegistrySnapshot
from libs.common.runtime import ed25519
from libs.common.runtime.clock import now
from libs.common.runtime.http import ApiError
from services.ingress.candidate import Claim, KeyKind, claim

CREDIBLE_BUT_LATE: Final = frozenset({RefusalReason.STALE, RefusalReason.FUTURE})
"""What is refused for its time alone: times are judged after signatures."""
_LONGEST_CONTENT_TYPE: Final = 256


class RejectedError(ApiError):
    """A request to an existing source that is refused, and kept under this reason.

    Args:
        status: of the answer.
        reason: for the operator, with a stable first word.
        detail: for the sender.
    """

    def __init__(self, status: int, reason: str, detail: str | list[dict[str, Any]]) -> None:
        super().__init__(status, detail)
        self.reason = reason


def document_of(source: RegistryObject) -> SourceDocument:
    """The source's document."""
    assert isinstance(source.document, SourceDocument)
    return source.document


def scheme_of(source: RegistryObject) -> Scheme:
    """How its requests are judged and read."""
    return configuration.scheme(document_of(source))


def refused(snapshot: RegistrySnapshot, source: RegistryObject, arrived: Request, *, at: datetime) -> Refused | None:
    """Why the source does not believe a request that arrived at `at`, by the secrets that it has now."""
    trust = Trust(secrets=snapshot.secrets(source, now()), now=at, ed25519=ed25519.verify)
    verdict = scheme_of(source).verify(arrived, trust)
    return verdict if isinstance(verdict, Refused) else None


def refusal(verdict: Refused) -> RejectedError:
    """What its sender hears: one body for all that is not believed, so that a forger learns nothing."""
    reason = f"{verdict.reason}: {verdict.detail}"
    if verdict.reason in CREDIBLE_BUT_LATE:
        return RejectedError(400, reason, "the signed timestamp is too far from now")
    return RejectedError(401, reason, "the signature is missing or wrong")


def read(scheme: Scheme, arrived: Request) -> tuple[Identity | Challenge, str]:
    """What the verified request is about, and its content type.

    Raises:
        RejectedError: 400 or 415.
    """
    document = scheme.extract_document(arrived.headers, arrived.body)
    if isinstance(document, Unreadable):
        raise _unreadable(document)
    [content_type] = arrived.headers["content-type"]  # extract_document has seen exactly one
    if len(content_type) > _LONGEST_CONTENT_TYPE or not (content_type.isascii() and content_type.isprintable()):
        raise RejectedError(415, "content-type: not printable ASCII", "the content type cannot be read")
    try:
        parsed = strictjson.parse(document) if isinstance(document, bytes) else document
    except strictjson.BadJsonError as error:
        raise RejectedError(400, f"json: {error}", str(error)) from None
    found = scheme.identify(arrived.headers, parsed)
    if isinstance(found, Unreadable):
        raise _unreadable(found)
    return found, content_type


def _unreadable(unreadable: Unreadable) -> RejectedError:
    status = 415 if unreadable.reason is UnreadableReason.CONTENT_TYPE else 400
    return RejectedError(status, f"{unreadable.reason}: {unreadable.detail}", unreadable.detail)


def claims_of(source: RegistryObject, arrived: Request, identity: Identity) -> tuple[Claim, ...]:
    """The claim on the provider's event id, where it sent one."""
    assert source.app is not None, "a source belongs to an application"
    if identity.event_id is None:
        return ()
    parts = source.id.bytes, identity.event_id.encode()
    return (claim(source.app, KeyKind.PROVIDER_EVENT, parts, arrived.body),)
