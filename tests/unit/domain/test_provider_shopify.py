"""Shopify: base64 over the body, the rest in headers."""

from datetime import UTC, datetime

import pytest

from libs.common.domain.providers.scheme import Identity, Unreadable
from libs.common.domain.providers.shopify import SCHEME
from libs.common.domain.signatures.verdict import RefusalReason, Verified
from tests.support import signing
from tests.support.trust import NOW, reason, sent, trusting

BODY = b'{"id":820982911946154508}'
SIGNED = signing.shopify(BODY, "hush", NOW)
NAME = "X-Shopify-Hmac-Sha256"


def test_either_secret_of_a_rotation_is_believed() -> None:
    assert SCHEME.verify(sent(SIGNED, BODY), trusting("new", "hush")) == Verified()
    assert reason(SCHEME.verify(sent(SIGNED, BODY), trusting("new"))) is RefusalReason.MISMATCH


@pytest.mark.parametrize("value", ["", SIGNED[NAME].rstrip("="), SIGNED[NAME] + " ", [SIGNED[NAME]] * 2])
def test_a_header_of_another_form_is_malformed(value: str | list[str]) -> None:
    assert reason(SCHEME.verify(sent({NAME: value}, BODY), trusting("hush"))) is RefusalReason.MALFORMED


def test_another_text_of_the_same_bytes_is_a_mismatch() -> None:
    # The last character before the padding has two bits that encode nothing.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = alphabet[alphabet.index(SIGNED[NAME][-2]) ^ 1]
    other = SIGNED[NAME][:-2] + last + "="
    assert reason(SCHEME.verify(sent({NAME: other}, BODY), trusting("hush"))) is RefusalReason.MISMATCH


def test_the_topic_becomes_an_event_type() -> None:
    headers = sent(SIGNED | {"X-Shopify-Triggered-At": "2023-03-29T18:00:27.877041743Z"}).headers
    assert SCHEME.identify(headers, {"id": 1}) == Identity(
        event_type="orders.create",
        event_id="b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
        occurred_at=datetime(2023, 3, 29, 18, 0, 27, 877041, tzinfo=UTC),
    )


def test_without_a_topic_there_is_no_identity() -> None:
    assert isinstance(SCHEME.identify({}, {}), Unreadable)
    assert isinstance(SCHEME.identify({"x-shopify-topic": ["a", "b"]}, {}), Unreadable)
