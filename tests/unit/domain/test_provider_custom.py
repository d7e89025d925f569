"""Senders that the source describes: any HMAC, a shared token, a user and a password."""

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.common.domain.providers.scheme import Identity, Scheme, Unreadable
from libs.common.domain.providers.settings import Algorithm, Encoding, Settings, SettingsError, Verification
from libs.common.domain.providers.table import Provider, scheme_of
from libs.common.domain.signatures.verdict import RefusalReason, Verdict, Verified
from tests.support.signing import VERIFICATION, acme, base64_mac, mac
from tests.support.trust import NOW, reason, sent, trusting

BODY = b'{"type":"order.paid","id":7}'
SECRET = "acme's"
SIGNED = acme(BODY, SECRET, NOW)


def hmac_of(**said: Any) -> Scheme:
    return scheme_of(Provider.HMAC, Settings(verification=replace(Verification(header="X-Signature"), **said)))


def refusal(provider: Provider, verification: Verification | None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as refused:
        scheme_of(provider, Settings(verification=verification))
    return refused.value.place


# Any HMAC

OWN = scheme_of(Provider.HMAC, Settings(verification=VERIFICATION))


def judge(**changed: str | list[str]) -> Verdict:
    headers: dict[str, str | list[str]] = {
        **SIGNED,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    return OWN.verify(sent(headers, BODY), trusting("new", SECRET))


def test_everything_at_once_is_believed() -> None:
    assert judge() == Verified()


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("encoding", Encoding)
def test_each_algorithm_in_each_encoding(algorithm: Algorithm, encoding: Encoding) -> None:
    signature = {Encoding.HEX: mac("k", BODY, algorithm).hex(), Encoding.BASE64: base64_mac("k", BODY, algorithm)}
    scheme = hmac_of(algorithm=algorithm, encoding=encoding)
    for way, text in signature.items():
        verdict = scheme.verify(sent({"x-signature": text}, BODY), trusting("k"))
        assert (verdict == Verified()) is (way is encoding)


def test_the_providers_that_we_know_could_be_described() -> None:
    github = hmac_of(header="X-Hub-Signature-256", prefix="sha256=")
    assert (
        github.verify(sent({"X-Hub-Signature-256": f"sha256={mac('k', BODY).hex()}"}, BODY), trusting("k"))
        == Verified()
    )
    slack = hmac_of(header="X-Slack-Signature", prefix="v0=", template="v0:{timestamp}:{body}", timestamp_header="T")
    t = str(int(NOW.timestamp()))
    signature = f"v0={mac('k', f'v0:{t}:'.encode() + BODY).hex()}"
    assert slack.verify(sent({"X-Slack-Signature": signature, "T": t}, BODY), trusting("k")) == Verified()


@pytest.mark.parametrize("name", ["X_Acme_Signature", "X_Acme_Time", "X_Acme_Id"])
def test_each_header_that_is_signed_comes_once(name: str) -> None:
    value = SIGNED[name.replace("_", "-")]
    assert reason(judge(**{name: [value, value]})) is RefusalReason.MALFORMED
    assert reason(judge(**{name: []})) is RefusalReason.MISSING


@pytest.mark.parametrize("signature", ["", "sha256=00", SIGNED["X-Acme-Signature"][7:]])
def test_a_signature_without_its_prefix_is_malformed(signature: str) -> None:
    assert reason(judge(X_Acme_Signature=signature)) is RefusalReason.MALFORMED


@pytest.mark.parametrize("time", ["nan", "1e9", "", "-1", "9" * 12])
def test_a_time_that_is_no_unix_seconds_is_malformed(time: str) -> None:
    assert reason(judge(X_Acme_Time=time)) is RefusalReason.MALFORMED


def test_what_is_signed_cannot_be_changed() -> None:
    assert reason(judge(X_Acme_Id="evt-2")) is RefusalReason.MISMATCH
    assert reason(judge(X_Acme_Time=str(int(NOW.timestamp()) + 1))) is RefusalReason.MISMATCH
    assert (
        reason(judge(X_Acme_Signature=SIGNED["X-Acme-Signature"].upper().replace("SHA", "sha")))
        is RefusalReason.MISMATCH
    )


@pytest.mark.parametrize(("seconds", "expected"), [(61, RefusalReason.STALE), (-61, RefusalReason.FUTURE)])
def test_the_tolerance_is_the_sources(seconds: int, expected: RefusalReason) -> None:
    verification = replace(VERIFICATION, tolerance=timedelta(seconds=60))
    scheme = scheme_of(Provider.HMAC, Settings(verification=verification))
    request = sent(SIGNED, BODY)
    assert reason(scheme.verify(request, trusting(SECRET, now=NOW + timedelta(seconds=seconds)))) is expected
    assert scheme.verify(request, trusting(SECRET, now=NOW + timedelta(seconds=seconds * 60 / 61))) == Verified()


@pytest.mark.parametrize(
    "template",
    [
        "",
        "{timestamp}",
        "{body}{body}",
        "{Body}",
        "{body}{x}",
        "{{body}}",
        "{body}}",
        "{body}.{timestamp}",
        "{id}{body}",
        "{body}" + "x" * 256,
    ],
)
def test_a_template_that_cannot_be_followed_is_refused(template: str) -> None:
    assert refusal(Provider.HMAC, Verification(header="X-S", template=template)) == ("verification", "template")


def test_a_time_that_would_not_be_signed_is_refused() -> None:
    verification = Verification(header="X-S", timestamp_header="X-T")
    assert refusal(Provider.HMAC, verification) == ("verification", "template")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("header", "X S"), ("header", "Content-Type"), ("header", "Host"), ("header", "X-Request-Id"), ("header", ""),
        ("prefix", "é"), ("prefix", "x" * 65), ("timestamp_header", "a:b"), ("event_type", "a/b"),
        ("event_type_header", "Authorization"), ("event_id_header", "Cookie"), ("event_id_header", "a\n"),
        ("event_type_field", "a..b"), ("event_id_field", ""), ("challenge_parameter", "a b"),
    ],
)  # fmt: skip
def test_a_setting_of_another_form_is_refused_with_its_place(name: str, value: Any) -> None:
    verification = replace(Verification(header="X-S"), **{name: value})
    assert refusal(Provider.HMAC, verification) == ("verification", name)


def test_the_header_has_no_default() -> None:
    for provider in (Provider.HMAC, Provider.TOKEN):
        assert refusal(provider, None) == refusal(provider, Verification()) == ("verification", "header")


def test_two_places_for_one_thing_are_refused() -> None:
    both = Verification(header="X-S", event_id_header="X-Id", event_id_field="id")
    assert refusal(Provider.HMAC, both) == ("verification", "event_id_field")
    three = Verification(header="X-S", event_type="a", event_type_field="type")
    assert refusal(Provider.HMAC, three) == ("verification", "event_type_field")


def test_what_would_not_be_heeded_is_refused() -> None:
    assert refusal(Provider.TOKEN, Verification(header="X-T", algorithm=Algorithm.SHA1)) == (
        "verification",
        "algorithm",
    )
    assert refusal(Provider.BASIC, Verification(header="X-T")) == ("verification", "header")


# Identity


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, Identity(event_type="order.paid", event_id=None)),
        ({"event_type": "acme"}, Identity(event_type="acme", event_id=None)),
        ({"event_type_header": "X-Event"}, Identity(event_type="order.paid.now", event_id=None)),
        ({"event_type_field": "data.kind"}, Identity(event_type="invoice.sent", event_id=None)),
        ({"event_id_header": "X-Id"}, Identity(event_type="order.paid", event_id="h-1")),
        ({"event_id_field": "id"}, Identity(event_type="order.paid", event_id="7")),
    ],
)
def test_type_and_id_stand_where_the_source_says(said: dict[str, str], expected: Identity) -> None:
    document = {"type": "order.paid", "id": 7, "data": {"kind": "invoice: sent"}}
    headers = sent({"X-Event": "order/paid/now", "X-Id": "h-1"}).headers
    assert hmac_of(**said).identify(headers, document) == expected


@pytest.mark.parametrize("document", [None, [], "x", {"type": {}}, {"type": "/"}])
def test_without_a_type_there_is_no_identity(document: object) -> None:
    assert isinstance(hmac_of().identify({}, document), Unreadable)


def test_a_number_too_long_to_write_out_is_no_id() -> None:
    document = {"type": "a", "id": 10**5000}
    assert isinstance(hmac_of(event_id_field="id").identify({}, document), Unreadable)


# A shared token


@pytest.mark.parametrize(("header", "prefix"), [("X-Token", ""), ("Authorization", "Bearer ")])
def test_a_token_is_believed_where_the_source_says(header: str, prefix: str) -> None:
    scheme = scheme_of(Provider.TOKEN, Settings(verification=Verification(header=header, prefix=prefix)))
    assert scheme.verify(sent({header: f"{prefix}sesame"}), trusting("new", "sesame")) == Verified()
    assert reason(scheme.verify(sent({header: f"{prefix}Sesame"}), trusting("sesame"))) is RefusalReason.MISMATCH
    assert reason(scheme.verify(sent({header: prefix}), trusting("sesame"))) is RefusalReason.MISMATCH
    assert reason(scheme.verify(sent({header: [f"{prefix}sesame"] * 2}), trusting("sesame"))) is RefusalReason.MALFORMED
    assert reason(scheme.verify(sent({}), trusting("sesame"))) is RefusalReason.MISSING


def test_an_empty_token_is_nobodys() -> None:
    scheme = scheme_of(Provider.TOKEN, Settings(verification=Verification(header="X-Token")))
    assert reason(scheme.verify(sent({"X-Token": ""}), trusting(""))) is RefusalReason.MISMATCH


def test_a_token_is_never_kept_though_it_be_the_identity_too() -> None:
    verification = Verification(header="X-Token", event_id_header="X-Token", event_type_header="X-Event")
    assert scheme_of(Provider.TOKEN, Settings(verification=verification)).evidence == {"x-event"}


# A user and a password

BASIC = scheme_of(Provider.BASIC)


def basic(text: str, *, scheme: str = "Basic") -> dict[str, str]:
    return {"Authorization": f"{scheme} {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC"])
def test_a_user_and_a_password_are_believed(scheme: str) -> None:
    assert BASIC.verify(sent(basic("üser:pass:word", scheme=scheme)), trusting("üser:pass:word")) == Verified()


@pytest.mark.parametrize("text", ["user:Pass", "user", "", ":", "user:pass\n"])
def test_others_are_not(text: str) -> None:
    assert reason(BASIC.verify(sent(basic(text)), trusting("user:pass"))) is RefusalReason.MISMATCH


def test_another_scheme_is_malformed() -> None:
    assert (
        reason(BASIC.verify(sent(basic("user:pass", scheme="Bearer")), trusting("user:pass")))
        is RefusalReason.MALFORMED
    )


@pytest.mark.parametrize("secret", ["user", ":pass", "user:", ""])
def test_a_secret_is_a_user_a_colon_and_a_password(secret: str) -> None:
    assert BASIC.check_secret(secret) is not None
    assert BASIC.check_secret("user:pass:word") is None
