"""Signatures published by providers, and forgeries of them (`tests/data/signature-vectors.json`)."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from libs.common.domain.providers import SCHEMES, Provider
from libs.common.domain.signatures.verdict import RefusalReason, Refused, Verified

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "signature-vectors.json").read_text())

PROVIDERS = {
    "stripe": Provider.STRIPE,
    "github": Provider.GITHUB,
    "standardwebhooks": Provider.STANDARD_WEBHOOKS,
}
# Providers of the corpus that no source can have yet.
NOT_YET = {"slack", "shopify", "twilio", "gitlab"}
# Valid, and by ed25519, which needs more than the standard library.
ASYMMETRIC = ("standardwebhooks", "v1a-ed25519")


def judge(vector: dict[str, Any]) -> Verified | Refused:
    headers = {name.lower(): [value] for name, value in vector["headers"].items()}
    now = datetime.fromtimestamp(vector.get("now", 0), tz=UTC)
    verify = SCHEMES[PROVIDERS[vector["provider"]]].verify
    return verify(headers, vector["body"].encode(), secrets=[vector["secret"]], now=now)


def test_each_vector_is_of_a_provider_that_is_here_or_known_to_be_missing() -> None:
    assert {vector["provider"] for vector in VECTORS} == PROVIDERS.keys() | NOT_YET


@pytest.mark.parametrize(
    "vector",
    [
        pytest.param(vector, id=f"{vector['provider']}-{vector['name']}")
        for vector in VECTORS
        if vector["provider"] in PROVIDERS and (vector["provider"], vector["name"]) != ASYMMETRIC
    ],
)
def test_what_the_provider_signed_is_believed_and_nothing_else(vector: dict[str, Any]) -> None:
    assert (judge(vector) == Verified()) is vector["valid"]


def test_an_asymmetric_signature_is_not_mistaken_for_a_symmetric_one() -> None:
    [vector] = [vector for vector in VECTORS if (vector["provider"], vector["name"]) == ASYMMETRIC]
    assert judge(vector) == Refused(
        reason=RefusalReason.MALFORMED, detail="the webhook-signature lists no v1 signature"
    )
    assert SCHEMES[Provider.STANDARD_WEBHOOKS].check_secret(vector["secret"]) is not None
