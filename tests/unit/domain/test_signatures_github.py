"""GitHub's signatures: `sha256=<hex>` over the body, and nothing else."""

import hashlib
import hmac

import pytest

from libs.common.domain.providers.github import SCHEME
from libs.common.domain.signatures.verdict import RefusalReason, Verdict, Verified
from tests.support.trust import reason, sent, trusting

# https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries#testing-the-webhook-payload-validation
SECRET = "It's a Secret to Everybody"
BODY = b"Hello, World!"
SIGNATURE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"


def judge(*headers: str, secrets: tuple[str, ...] = (SECRET,)) -> Verdict:
    return SCHEME.verify(sent({"x-hub-signature-256": headers}, BODY), trusting(*secrets))


def test_the_documentations_example_is_believed() -> None:
    assert judge(SIGNATURE) == Verified()


def test_any_secret_of_the_source_may_have_signed() -> None:
    assert judge(SIGNATURE, secrets=("next", SECRET)) == judge(SIGNATURE, secrets=(SECRET, "next")) == Verified()


def test_a_sha1_signature_alone_is_no_signature() -> None:
    sha1 = "sha1=" + hmac.new(SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    assert reason(SCHEME.verify(sent({"X-Hub-Signature": sha1}, BODY), trusting(SECRET))) is RefusalReason.MISSING


def test_a_repeated_header_is_refused() -> None:
    assert reason(judge(SIGNATURE, SIGNATURE)) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    "header", ["", SIGNATURE[7:], SIGNATURE.upper(), SIGNATURE[:-1], SIGNATURE + "\n", SIGNATURE[:-1] + "é", "\udcff"]
)
def test_a_header_of_another_form_is_malformed(header: str) -> None:
    assert reason(judge(header)) is RefusalReason.MALFORMED


def test_a_signature_by_nobody_we_know_is_a_mismatch() -> None:
    assert reason(judge(SIGNATURE, secrets=("another",))) is RefusalReason.MISMATCH
    assert reason(judge(SIGNATURE, secrets=())) is RefusalReason.MISMATCH


def test_an_empty_secret_signs_nothing() -> None:
    signed_by_anyone = "sha256=" + hmac.new(b"", BODY, hashlib.sha256).hexdigest()
    assert reason(judge(signed_by_anyone, secrets=("",))) is RefusalReason.MISMATCH
