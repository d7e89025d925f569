"""Signatures published by providers, and forgeries of them (`tests/data/signature-vectors.json`)."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from libs.common.domain.providers.settings import Settings
from libs.common.domain.providers.table import Provider, scheme_of
from libs.common.domain.signatures.verdict import Verdict, Verified
from tests.support.trust import sent, trusting

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "signature-vectors.json").read_text())

PROVIDERS = {provider.replace("-", ""): provider for provider in Provider}

# How many of the corpus believe and refuse, for each provider that it knows.
EXPECTED = {
    "github": {True: 3, False: 5},
    "gitlab": {True: 1, False: 1},
    "shopify": {True: 1, False: 1},
    "slack": {True: 1, False: 1},
    "standardwebhooks": {True: 1, False: 7},
    "stripe": {True: 4, False: 4},
    "twilio": {True: 2, False: 1},
}

# Providers that describe themselves have no published signatures; test_provider_custom.py has theirs.
WITHOUT_VECTORS = {Provider.HMAC, Provider.TOKEN, Provider.BASIC}


def judge(vector: dict[str, Any]) -> Verdict:
    url = urlsplit(vector.get("url", ""))
    settings = Settings(public_url=f"{url.scheme}://{url.netloc}" if url.netloc else None)
    request = sent(vector["headers"], vector["body"].encode(), target=f"{url.path}?{url.query}")
    now = datetime.fromtimestamp(vector.get("now", 0), tz=UTC)
    return scheme_of(PROVIDERS[vector["provider"]], settings).verify(request, trusting(vector["secret"], now=now))


def test_these_are_the_vectors_and_none_is_passed_over() -> None:
    counts = {
        provider: dict(Counter(vector["valid"] for vector in VECTORS if vector["provider"] == provider))
        for provider in {vector["provider"] for vector in VECTORS}
    }
    assert counts == EXPECTED
    assert {PROVIDERS[provider] for provider in counts} == set(Provider) - WITHOUT_VECTORS


@pytest.mark.parametrize(
    "vector", [pytest.param(vector, id=f"{vector['provider']}-{vector['name']}") for vector in VECTORS]
)
def test_what_the_provider_signed_is_believed_and_nothing_else(vector: dict[str, Any]) -> None:
    assert (judge(vector) == Verified()) is vector["valid"]


@pytest.mark.parametrize(
    "vector",
    [pytest.param(vector, id=f"{vector['provider']}-{vector['name']}") for vector in VECTORS if vector["valid"]],
)
def test_the_secret_of_each_that_is_believed_could_have_been_registered(vector: dict[str, Any]) -> None:
    assert scheme_of(PROVIDERS[vector["provider"]]).check_secret(vector["secret"]) is None
