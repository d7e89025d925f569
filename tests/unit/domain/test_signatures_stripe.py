"""Stripe's signatures: `t=<Unix seconds>,v1=<hex>` over `t.body`, keyed with the whole secret as text."""

import hashlib
import hmac
from datetime import datetime, timedelta

import pytest

from libs.common.domain.providers.stripe import SCHEME
from libs.common.domain.signatures.verdict import RefusalReason, Refused, Verdict, Verified
from tests.support.trust import NOW, reason, sent, trusting

SECRET = "whsec_4f1a7c0e"
OTHER_SECRET = "whsec_next"
BODY = b'{"id": "evt_1", "type": "payment_intent.succeeded"}'
T = str(int(NOW.timestamp()))


def v1(secret: str = SECRET, *, t: str = T) -> str:
    return "v1=" + hmac.new(secret.encode(), t.encode() + b"." + BODY, hashlib.sha256).hexdigest()


def judge(*headers: str, now: datetime = NOW, secrets: tuple[str, ...] = (SECRET,)) -> Verdict:
    return SCHEME.verify(sent({"stripe-signature": headers}, BODY), trusting(*secrets, now=now))


def test_a_signed_event_is_believed() -> None:
    assert judge(f"t={T},{v1()}") == Verified()


def test_while_a_secret_rotates_either_side_may_hold_both() -> None:
    assert judge(f"t={T},{v1(OTHER_SECRET)},{v1()}") == Verified()
    assert judge(f"t={T},{v1()}", secrets=(OTHER_SECRET, SECRET)) == Verified()


def test_other_schemes_are_ignored_and_do_not_count() -> None:
    assert judge(f"v2=x,t={T},v0={v1()[3:]},{v1()},noise") == Verified()
    assert reason(judge(f"t={T},v0={v1()[3:]}")) is RefusalReason.MALFORMED


def test_a_request_without_the_header_is_missing_its_signature() -> None:
    assert reason(judge()) is RefusalReason.MISSING


def test_a_repeated_header_is_refused() -> None:
    assert reason(judge(f"t={T},{v1()}", f"t={T},{v1()}")) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="empty"),
        pytest.param(v1(), id="no-t"),
        pytest.param(f"t={T},t={T},{v1()}", id="two-t"),
        pytest.param(f"t=,{v1()}", id="empty-t"),
        pytest.param(f"t=nan,{v1(t='nan')}", id="nan"),
        pytest.param(f"t={'9' * 5000},{v1()}", id="huge-t"),
        pytest.param(f"t={T}", id="no-v1"),
        pytest.param(f"t={T};{v1()}", id="semicolon"),
        pytest.param(f"t={T},{v1()},é", id="not-ascii"),
        pytest.param(f"t={T},{v1()},\udcff", id="undecodable"),
    ],
)
def test_a_header_of_another_form_is_malformed(header: str) -> None:
    assert reason(judge(header)) is RefusalReason.MALFORMED


@pytest.mark.parametrize("signature", ["v1=", "v1=bad", v1(OTHER_SECRET), v1().upper().replace("V", "v"), v1() + "0"])
def test_a_signature_by_nobody_we_know_is_a_mismatch(signature: str) -> None:
    assert reason(judge(f"t={T},{signature}")) is RefusalReason.MISMATCH


def test_an_empty_secret_signs_nothing() -> None:
    assert reason(judge(f"t={T},{v1('')}", secrets=("",))) is RefusalReason.MISMATCH


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_to_either_side_are_believed(seconds: int) -> None:
    assert judge(f"t={T},{v1()}", now=NOW + timedelta(seconds=seconds)) == Verified()


@pytest.mark.parametrize(("seconds", "expected"), [(301, RefusalReason.STALE), (-301, RefusalReason.FUTURE)])
def test_more_than_five_minutes_are_not(seconds: int, expected: RefusalReason) -> None:
    assert reason(judge(f"t={T},{v1()}", now=NOW + timedelta(seconds=seconds))) is expected


def test_a_forged_request_is_a_mismatch_however_old() -> None:
    assert reason(judge(f"t={T},{v1(OTHER_SECRET)}", now=NOW + timedelta(days=1))) is RefusalReason.MISMATCH


def test_what_an_operator_reads_holds_no_signature() -> None:
    verdict = judge(f"t={T},{v1(OTHER_SECRET)}")
    assert isinstance(verdict, Refused)
    assert v1()[3:] not in verdict.detail
    assert v1(OTHER_SECRET)[3:] not in verdict.detail
