"""How a change of a document is told: defaults spelled out, secrets as fingerprints, hashes not at all."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from msgspec import Raw

from libs.common.contracts.history import changes
from libs.common.contracts.registry import (
    DOCUMENTS,
    AnyDocument,
    ApiKeyDocument,
    ApplicationDocument,
    EndpointDocument,
    EventTypeDocument,
    KeyReference,
    OrganisationDocument,
    Scope,
    SourceDocument,
)

UNTIL = datetime(2026, 1, 1, tzinfo=UTC)
ONE = KeyReference(id=UUID(int=1), fingerprint="one")
TWO = KeyReference(id=UUID(int=2), fingerprint="two")


def told(old: AnyDocument | None, new: AnyDocument) -> dict[str, object]:
    return {".".join(each.path): (each.old, each.new) for each in changes(old, new)}


def test_a_default_that_is_changed_is_told_with_its_value() -> None:
    before = EndpointDocument(url="https://a.example/")
    after = EndpointDocument(url="https://a.example/", disabled=True, timeout_ms=2000)
    assert told(before, after) == {"disabled": (False, True), "timeoutMs": (None, 2000)}


def test_a_creation_tells_what_is_not_the_default() -> None:
    assert told(None, ApplicationDocument(name="a", metadata={"x": "y"})) == {
        "name": (None, "a"),
        "metadata": (None, {"x": "y"}),
    }


def test_a_rotation_tells_fingerprints_and_no_ids() -> None:
    before = EndpointDocument(url="https://a.example/", keys=(ONE,))
    rotated = (TWO, KeyReference(id=ONE.id, fingerprint="one", expires_at=UNTIL))
    assert told(before, EndpointDocument(url="https://a.example/", keys=rotated)) == {
        "keys": (
            [{"fingerprint": "one"}],
            [{"fingerprint": "two"}, {"fingerprint": "one", "expiresAt": "2026-01-01T00:00:00Z"}],
        )
    }


def test_a_keys_hash_is_never_told() -> None:
    key = ApiKeyDocument(hash="5ec2e7", scopes=(Scope.READ,), replaces=UUID(int=3))
    assert told(None, key) == {"scopes": (None, ["read"]), "replaces": (None, "key_0000000000000000000003")}
    assert told(ApiKeyDocument(hash="0"), ApiKeyDocument(hash="1")) == {}


@pytest.mark.parametrize(
    "document",
    [
        OrganisationDocument(name="o"),
        ApplicationDocument(name="a"),
        EndpointDocument(url="https://a.example/", keys=(ONE,)),
        SourceDocument(name="s", provider="github", keys=(ONE,)),
        EventTypeDocument(description="d", schemas={"1": Raw(b'{"type":"object"}')}),
        ApiKeyDocument(hash="0"),
    ],
    ids=lambda document: type(document).__name__,
)
def test_a_document_of_each_kind_can_be_told(document: AnyDocument) -> None:
    assert type(document) in DOCUMENTS.values()
    changes(None, document)
    assert changes(document, document) == []
