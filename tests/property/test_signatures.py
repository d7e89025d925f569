"""What holds of signatures for any message, key, time and forgery."""

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

from hypothesis import assume, example, given
from hypothesis import strategies as st

from libs.common.domain.providers import SCHEMES, Identity, Provider, Scheme, Unreadable
from libs.common.domain.signatures import github, standard, stripe, xwebhook
from libs.common.domain.signatures.verdict import Refused, Verified

KEYS = st.binary(min_size=24, max_size=64)
BODIES = st.binary(max_size=200)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
TIMESTAMPS = st.integers(min_value=0, max_value=99_999_999_999)
OFFSETS = st.timedeltas(min_value=timedelta(minutes=-5), max_value=timedelta(minutes=5))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 8, 21, tzinfo=UTC)

# Header values as servers hand them on: surrogates stand for bytes that are no UTF-8.
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=80)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("stripe-signature", "x-hub-signature-256", "x-github-event", "x-github-delivery"),
            *("webhook-id", "webhook-timestamp", "webhook-signature", "content-type"),
        ]
    ),
    st.lists(
        TEXTS
        | st.from_regex(r"(t=[0-9]{0,30},?|v1[=,][0-9a-f]*[, ]?|sha256=[0-9a-f]{64}|[0-9]{1,40})*", fullmatch=True),
        max_size=2,
    ),
)
SCHEME = st.sampled_from(list(SCHEMES.values()))


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


@given(KEYS)
def test_a_secret_survives_being_shown(key: bytes) -> None:
    assert standard.parse_secret(standard.format_secret(key)) == key


@given(
    keys=st.lists(KEYS, min_size=1, max_size=3),
    message_id=IDS,
    timestamp=TIMESTAMPS,
    body=BODIES,
    offset=OFFSETS,
    data=st.data(),
)
def test_what_we_sign_verifies_with_any_of_its_secrets(
    *, keys: list[bytes], message_id: str, timestamp: int, body: bytes, offset: timedelta, data: st.DataObject
) -> None:
    sent = standard.headers(keys, message_id=message_id, timestamp=timestamp, body=body)
    received = {name: [value] for name, value in sent.items()}
    now = EPOCH + timedelta(seconds=timestamp) + offset
    assert standard.verify(received, body, secrets=[data.draw(st.sampled_from(keys))], now=now) == Verified()


@given(
    key=KEYS,
    message_id=IDS,
    timestamp=TIMESTAMPS,
    body=BODIES,
    bit=st.integers(min_value=0),
    flipped=st.sampled_from(["body", "id", "timestamp", "signature", "key"]),
)
def test_no_bit_of_what_we_sign_can_be_flipped(
    *, key: bytes, message_id: str, timestamp: int, body: bytes, bit: int, flipped: str
) -> None:
    assume(body or flipped != "body")
    sent = standard.headers([key], message_id=message_id, timestamp=timestamp, body=body)
    if flipped == "body":
        body = flip(body, bit)
    elif flipped == "key":
        key = flip(key, bit)
    else:
        name = f"webhook-{flipped}"
        sent[name] = flip(sent[name].encode(), bit).decode("utf-8", "surrogateescape")
    received = {name: [value] for name, value in sent.items()}
    now = EPOCH + timedelta(seconds=timestamp)
    assert isinstance(standard.verify(received, body, secrets=[key], now=now), Refused)


@given(KEYS, BODIES.filter(bool), st.integers(min_value=0))
def test_no_bit_of_a_signed_body_can_be_flipped_on_its_way_in(secret: bytes, body: bytes, bit: int) -> None:
    t = str(int(NOW.timestamp()))
    by_github = {"x-hub-signature-256": ["sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()]}
    signed = hmac.new(secret, f"{t}.".encode() + body, hashlib.sha256).hexdigest()
    by_stripe = {"stripe-signature": [f"t={t},v1={signed}"]}
    assert github.verify(by_github, body, secrets=[secret]) == Verified()
    assert stripe.verify(by_stripe, body, secrets=[secret], now=NOW) == Verified()
    assert isinstance(github.verify(by_github, flip(body, bit), secrets=[secret]), Refused)
    assert isinstance(stripe.verify(by_stripe, flip(body, bit), secrets=[secret], now=NOW), Refused)


@given(SCHEME, HEADERS, st.binary(max_size=100), st.lists(TEXTS, max_size=2), st.datetimes(timezones=st.just(UTC)))
@example(SCHEMES[Provider.STRIPE], {"stripe-signature": [f"t={'9' * 11},v1="]}, b"", ["x"], NOW)
def test_nothing_that_is_received_makes_verification_raise_or_tell_a_secret(
    scheme: Scheme, headers: dict[str, list[str]], body: bytes, secrets: list[str], now: datetime
) -> None:
    verdict = scheme.verify(headers, body, secrets=secrets, now=now)
    assert isinstance(verdict, Refused)
    assert verdict.detail.isascii()


@given(
    SCHEME,
    HEADERS,
    st.binary(max_size=100),
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "id"]), inner),
    ),
)
def test_nothing_that_is_received_makes_reading_raise(
    scheme: Scheme, headers: dict[str, list[str]], body: bytes, document: object
) -> None:
    assert isinstance(scheme.identify(headers, document), Identity | Unreadable)
    assert isinstance(scheme.extract_document(headers, body), bytes | Unreadable)


@given(TEXTS)
def test_a_secret_that_a_check_passes_can_be_used(text: str) -> None:
    for scheme in SCHEMES.values():
        problem = scheme.check_secret(text)
        assert problem is None or text not in problem or len(text) < 7
    if SCHEMES[Provider.STANDARD_WEBHOOKS].check_secret(text) is None:
        standard.parse_secret(text)


@given(
    message_id=IDS,
    event_type=st.from_regex(r"[a-zA-Z0-9\-_.]{1,64}", fullmatch=True),
    accepted_at=st.datetimes(timezones=st.timezones()),
    document=st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists),
    content_type=st.text(),
    is_json=st.booleans(),
)
def test_a_wrapped_payload_is_json_and_says_whose_it_is(
    *, message_id: str, event_type: str, accepted_at: datetime, document: object, content_type: str, is_json: bool
) -> None:
    payload = json.dumps(document).encode()
    body = xwebhook.wrap(
        message_id=message_id,
        event_type=event_type,
        accepted_at=accepted_at,
        payload=payload,
        content_type=content_type,
        is_json=is_json,
    )
    read = json.loads(body)
    assert list(read) == ["id", "event", "timestamp", "data"]
    assert (read["id"], read["event"]) == (message_id, event_type)
    assert timedelta(0) <= accepted_at - datetime.fromisoformat(read["timestamp"]) < timedelta(milliseconds=1)
    if is_json:
        assert read["data"] == document
    else:
        assert read["data"]["contentType"] == content_type
