"""Standard Webhooks: what we send, and what we believe."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from libs.common.domain.providers.scheme import Identity
from libs.common.domain.providers.standard_webhooks import SCHEME
from libs.common.domain.signatures import standard
from libs.common.domain.signatures.verdict import RefusalReason, Verdict, Verified
from tests.support import signing
from tests.support.signing import PUBLIC_KEY, asymmetric
from tests.support.trust import reason, sent, trusting

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = standard.parse_secret(SECRET)
OTHER_KEY = b"another key of enough bytes!"
ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
TIMESTAMP = 1614265330
BODY = b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
NOW = datetime.fromtimestamp(TIMESTAMP, tz=UTC)


def request(**changed: list[str]) -> dict[str, list[str]]:
    """The specification's example request, with some headers changed (their `webhook-` left out)."""
    headers = {"id": [ID], "timestamp": [str(TIMESTAMP)], "signature": [SIGNATURE]} | changed
    return {f"webhook-{name}": values for name, values in headers.items()}


def judge(headers: dict[str, list[str]], *, now: datetime = NOW, keys: tuple[bytes, ...] = (KEY,)) -> Verdict:
    return standard.verify(headers, BODY, secrets=keys, now=now)


# Secrets


def test_a_secret_is_base64_with_or_without_its_prefix() -> None:
    assert standard.parse_secret(SECRET) == standard.parse_secret(SECRET.removeprefix("whsec_")) == KEY


def test_a_secret_is_shown_as_it_was_given() -> None:
    assert standard.format_secret(standard.parse_secret(SECRET)) == SECRET


@pytest.mark.parametrize("missing", ["", "=="])
def test_a_secret_may_lack_its_padding(missing: str) -> None:
    key = bytes(25)
    padded = standard.format_secret(key)
    assert padded.endswith("==")
    assert standard.parse_secret(padded.removesuffix(missing)) == key


@pytest.mark.parametrize("length", [24, 64])
def test_a_secret_of_24_to_64_bytes_is_taken(length: int) -> None:
    assert standard.parse_secret(standard.format_secret(bytes(length))) == bytes(length)


@pytest.mark.parametrize("length", [0, 23, 65])
def test_a_shorter_or_longer_secret_is_refused_with_its_length(length: int) -> None:
    with pytest.raises(standard.InvalidSecretError, match=f"24 to 64 bytes, this one of {length}$"):
        standard.parse_secret(standard.format_secret(bytes(length)))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("whsec_not base64 at all, not even nearly", id="words"),
        pytest.param("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=", id="ed25519-public-key"),
        pytest.param("whsec_" + "é" * 32, id="not-ascii"),
        pytest.param("whsec_" + "\udc80" * 32, id="lone-surrogates"),
        pytest.param("whsec_" + "A" * 33, id="a-character-too-many"),
        pytest.param("whsec_" + "A" * 33 + "B==", id="bits-that-no-key-has"),
        pytest.param(SECRET + "\n", id="trailing-newline"),
        pytest.param(SECRET + "====", id="padding-that-pads-nothing"),
        pytest.param("whsec_" + "-_" * 16, id="the-url-alphabet"),
    ],
)
def test_a_text_that_is_no_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(standard.InvalidSecretError) as refused:
        standard.parse_secret(text)
    assert text.removeprefix("whsec_") not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


# Signing


def test_the_specifications_example_is_signed_as_printed() -> None:
    assert standard.headers([KEY], message_id=ID, timestamp=TIMESTAMP, body=BODY) == {
        "webhook-id": ID,
        "webhook-timestamp": "1614265330",
        "webhook-signature": SIGNATURE,
    }


def test_while_a_secret_rotates_the_message_is_signed_with_both() -> None:
    sent = standard.headers([OTHER_KEY, KEY], message_id=ID, timestamp=TIMESTAMP, body=BODY)
    assert sent["webhook-signature"].split(" ")[1] == SIGNATURE
    received = {name: [value] for name, value in sent.items()}
    assert judge(received, keys=(KEY,)) == judge(received, keys=(OTHER_KEY,)) == Verified()


@pytest.mark.parametrize("message_id", ["msg.1", "", "msg 1", "msg_é", "m" * 257, "msg_1\n"])
def test_an_id_that_could_be_misread_is_not_signed(message_id: str) -> None:
    with pytest.raises(ValueError, match="without a full stop"):
        standard.headers([KEY], message_id=message_id, timestamp=TIMESTAMP, body=BODY)


def test_nothing_is_sent_unsigned() -> None:
    with pytest.raises(ValueError, match="at least one secret"):
        standard.headers([], message_id=ID, timestamp=TIMESTAMP, body=BODY)


# Verifying


def test_the_specifications_example_is_believed() -> None:
    assert judge(request()) == Verified()


def test_any_signature_of_the_list_may_match_and_other_versions_are_ignored() -> None:
    assert judge(request(signature=[f"v1a,AAAA v1,AAAA v2,{SIGNATURE[3:]} nonsense {SIGNATURE}"])) == Verified()


def test_any_secret_of_the_source_may_have_signed() -> None:
    assert judge(request(), keys=(OTHER_KEY, KEY)) == judge(request(), keys=(KEY, OTHER_KEY)) == Verified()


@pytest.mark.parametrize("header", ["id", "timestamp", "signature"])
def test_each_header_must_be_there(header: str) -> None:
    assert reason(judge(request(**{header: []}))) is RefusalReason.MISSING


@pytest.mark.parametrize("header", ["id", "timestamp", "signature"])
def test_a_repeated_header_is_refused_even_when_both_are_alike(header: str) -> None:
    [value] = request()[f"webhook-{header}"]
    assert reason(judge(request(**{header: [value, value]}))) is RefusalReason.MALFORMED


@pytest.mark.parametrize("header", ["id", "timestamp", "signature"])
@pytest.mark.parametrize("value", ["", "\udcff", "é", "\x00", " ", "a.b"])
def test_a_header_that_cannot_be_one_is_malformed(header: str, value: str) -> None:
    assert reason(judge(request(**{header: [value]}))) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    "timestamp",
    [
        "nan",
        "inf",
        "1e9",
        "+1",
        "-1",
        "1614265330.0",
        "1 ",
        "1\n",
        "1_0",
        "9" * 12,
        "9" * 5000,
        "\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_a_timestamp_is_whole_seconds_in_at_most_eleven_digits(timestamp: str) -> None:
    assert reason(judge(request(timestamp=[timestamp]))) is RefusalReason.MALFORMED


def test_a_list_without_v1_or_v1a_is_malformed() -> None:
    assert reason(judge(request(signature=[f"v2,{SIGNATURE[3:]}"]))) is RefusalReason.MALFORMED


def test_a_symmetric_signature_under_the_asymmetric_label_is_by_nobody() -> None:
    assert reason(judge(request(signature=[f"v1a,{SIGNATURE[3:]}"]))) is RefusalReason.MISMATCH


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param("v1,", id="empty"),
        pytest.param(SIGNATURE.rstrip("="), id="unpadded"),
        pytest.param(SIGNATURE.replace("OE=", "OF="), id="other-text-of-the-same-bytes"),
        pytest.param("v1," + base64.b64decode(SIGNATURE[3:]).hex(), id="hex"),
    ],
)
def test_only_the_one_way_to_write_a_signature_matches(signature: str) -> None:
    assert reason(judge(request(signature=[signature]))) is RefusalReason.MISMATCH


def test_a_source_without_secrets_believes_nothing() -> None:
    assert reason(judge(request(), keys=())) is RefusalReason.MISMATCH


def test_an_empty_key_signs_nothing() -> None:
    signature = standard.headers([b""], message_id=ID, timestamp=TIMESTAMP, body=BODY)["webhook-signature"]
    assert reason(judge(request(signature=[signature]), keys=(b"",))) is RefusalReason.MISMATCH


@pytest.mark.parametrize("seconds", [-300, 300])
def test_five_minutes_to_either_side_are_believed(seconds: int) -> None:
    assert judge(request(), now=NOW + timedelta(seconds=seconds)) == Verified()


@pytest.mark.parametrize(
    ("off_by", "expected"),
    [
        (timedelta(seconds=300, microseconds=1), RefusalReason.STALE),
        (timedelta(seconds=-300, microseconds=-1), RefusalReason.FUTURE),
    ],
)
def test_more_than_five_minutes_are_not(off_by: timedelta, expected: RefusalReason) -> None:
    assert reason(judge(request(), now=NOW + off_by)) is expected


def test_a_forged_request_is_a_mismatch_however_old() -> None:
    assert reason(judge(request(), now=NOW + timedelta(days=1), keys=(OTHER_KEY,))) is RefusalReason.MISMATCH


# Asymmetric keys

SIGNED_BY_KEY = asymmetric(BODY, NOW)["webhook-signature"]


def by_key(signature: str, *secrets: str) -> Verdict:
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(TIMESTAMP), "webhook-signature": signature}
    return SCHEME.verify(sent(headers, BODY), trusting(*secrets, now=NOW))


def test_a_signature_by_a_private_key_is_believed_by_its_public_one() -> None:
    assert by_key(SIGNED_BY_KEY, PUBLIC_KEY) == Verified()
    assert by_key(f"v1,AAAA {SIGNED_BY_KEY}", SECRET, PUBLIC_KEY) == Verified()


def test_a_secret_and_a_key_are_not_taken_for_one_another() -> None:
    assert reason(by_key(SIGNED_BY_KEY, SECRET)) is RefusalReason.MISMATCH
    assert reason(by_key(SIGNED_BY_KEY.replace("v1a,", "v1,"), PUBLIC_KEY)) is RefusalReason.MISMATCH
    # The public key, which everybody has, as the key of an HMAC.
    key = standard.parse_public_key(PUBLIC_KEY)
    forged = standard.headers([key], message_id="msg_1", timestamp=TIMESTAMP, body=BODY)["webhook-signature"]
    assert reason(by_key(forged, PUBLIC_KEY)) is RefusalReason.MISMATCH


@pytest.mark.parametrize("signature", ["v1a,", "v1a,!!!", "v1a,AAAA", SIGNED_BY_KEY.rstrip("="), SIGNED_BY_KEY + "="])
def test_what_is_no_signature_by_a_key_is_a_mismatch(signature: str) -> None:
    assert reason(by_key(signature, PUBLIC_KEY)) is RefusalReason.MISMATCH


def test_a_header_may_not_ask_for_more_work_than_a_rotation_needs() -> None:
    assert by_key(" ".join([SIGNED_BY_KEY] * 16), PUBLIC_KEY) == Verified()
    assert reason(by_key(" ".join([SIGNED_BY_KEY] * 17), PUBLIC_KEY)) is RefusalReason.MALFORMED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("whsk_" + PUBLIC_KEY[5:], "private"),
        ("whpk_AAAA", "32 bytes"),
        ("whpk_!", "base64"),
        ("whpk_" + SECRET[6:], "32 bytes"),
    ],
)
def test_what_is_no_public_key_is_refused_and_not_repeated(text: str, says: str) -> None:
    problem = SCHEME.check_secret(text)
    assert problem is not None
    assert says in problem
    assert text[5:] not in problem


def test_a_public_key_is_taken_and_is_no_secret_of_ours() -> None:
    assert SCHEME.check_secret(PUBLIC_KEY) is None
    with pytest.raises(standard.InvalidSecretError):
        standard.parse_secret(PUBLIC_KEY)


# Svix's own header names


def test_the_names_of_before_the_specification_are_believed_as_well() -> None:
    headers = signing.standard(BODY, SECRET, NOW, family="svix")
    assert SCHEME.verify(sent(headers, BODY), trusting(SECRET, now=NOW)) == Verified()
    assert SCHEME.identify(sent(headers).headers, {"type": "a"}) == Identity(event_type="a", event_id="msg_1")


def test_one_familys_id_does_not_stand_in_for_the_others() -> None:
    headers = signing.standard(BODY, SECRET, NOW) | {"svix-id": "msg_2"}
    assert SCHEME.identify(sent(headers).headers, {"type": "a"}) == Identity(event_type="a", event_id="msg_1")
    headers = signing.standard(BODY, SECRET, NOW, family="svix")
    headers["webhook-id"] = headers.pop("svix-id")
    assert reason(SCHEME.verify(sent(headers, BODY), trusting(SECRET, now=NOW))) is RefusalReason.MISSING
