"""What holds of signatures for any message, key, time and forgery."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from hypothesis import assume, example, given
from hypothesis import strategies as st

from libs.common.domain.providers.scheme import Challenge, Identity, Scheme, Unreadable
from libs.common.domain.providers.settings import Settings, SettingsError, Verification
from libs.common.domain.providers.table import Provider, scheme_of
from libs.common.domain.signatures import standard, xwebhook
from libs.common.domain.signatures.verdict import Refused, Verified
from tests.support import signing
from tests.support.signing import SIGNERS, VERIFICATION, Sender
from tests.support.trust import NOW, sent, trusting

KEYS = st.binary(min_size=24, max_size=64)
BODIES = st.binary(max_size=200)
IDS = st.from_regex(r"[a-zA-Z0-9_-]{1,64}", fullmatch=True)
TIMESTAMPS = st.integers(min_value=0, max_value=99_999_999_999)
OFFSETS = st.timedeltas(min_value=timedelta(minutes=-5), max_value=timedelta(minutes=5))
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Header values as servers hand them on: surrogates stand for bytes that are no UTF-8.
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=80)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("stripe-signature", "x-hub-signature-256", "x-github-event", "x-github-delivery"),
            *("webhook-id", "webhook-timestamp", "webhook-signature", "content-type", "host", "authorization"),
            *("x-gitlab-token", "x-slack-signature", "x-slack-request-timestamp", "x-shopify-hmac-sha256"),
            *("x-twilio-signature", "i-twilio-idempotency-token", "x-acme-signature", "x-acme-time", "x-acme-id"),
        ]
    ),
    st.lists(
        TEXTS
        | st.from_regex(r"(t=[0-9]{0,30},?|v1[=,][0-9a-f]*[, ]?|sha256=[0-9a-f]{64}|[0-9]{1,40})*", fullmatch=True),
        max_size=2,
    ),
)
OWN = Settings(verification=VERIFICATION)
TOKEN = Settings(verification=Verification(header="X-Acme-Signature", prefix="Bearer "))
SETTINGS = {Provider.HMAC: OWN, Provider.TOKEN: TOKEN}
SCHEMES = {provider: scheme_of(provider, SETTINGS.get(provider, Settings())) for provider in Provider}
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


@given(
    sender=st.sampled_from(SIGNERS),
    body=BODIES.filter(bool),
    bit=st.integers(min_value=0),
    data=st.data(),
)
def test_no_bit_of_what_a_provider_signed_can_be_flipped_on_its_way_in(
    sender: Sender, body: bytes, bit: int, data: st.DataObject
) -> None:
    scheme = scheme_of(sender.provider, sender.settings)
    headers = {name.lower(): value for name, value in sender.sign(body, sender.secret, NOW).items()}
    assert scheme.verify(sent(headers, body), trusting(sender.secret)) == Verified()
    signed = sorted(name for name in headers if not name.startswith(("x-github-", "x-shopify-topic", "x-shopify-web")))
    flipped = data.draw(st.sampled_from(["body", *(name for name in signed if name != "x-acme-event")]))
    if flipped == "body":
        body = flip(body, bit)
    else:
        headers[flipped] = flip(headers[flipped].encode(), bit).decode("utf-8", "surrogateescape")
    assert isinstance(scheme.verify(sent(headers, body), trusting(sender.secret)), Refused)


WORDS = st.from_regex(r"[a-zA-Z0-9]{1,12}", fullmatch=True)


@given(
    fields=st.dictionaries(WORDS, WORDS, min_size=1, max_size=5),
    bit=st.integers(min_value=0),
    flipped=st.sampled_from(["body", "target", "signature"]),
    as_json=st.booleans(),
)
def test_no_bit_of_what_twilio_signed_can_be_flipped_on_its_way_in(
    *, fields: dict[str, str], bit: int, flipped: str, as_json: bool
) -> None:
    """Of a form the fields are signed and not their encoding, so these need none."""
    scheme = scheme_of(Provider.TWILIO, Settings(public_url="https://hooks.example.com"))
    body = json.dumps(fields).encode() if as_json else urlencode(fields).encode()
    target = "/in/src_1" + (signing.twilio_query(body) if as_json else "")
    sign, kind = (signing.twilio_json, signing.JSON) if as_json else (signing.twilio_form, signing.FORM)
    headers = sign(body, "12345", f"https://hooks.example.com{target}") | kind
    assert scheme.verify(sent(headers, body, target=target), trusting("12345")) == Verified()
    match flipped:
        case "body":
            body = flip(body, bit)
        case "target":
            target = flip(target.encode(), bit).decode("utf-8", "surrogateescape")
        case _:
            headers["X-Twilio-Signature"] = flip(headers["X-Twilio-Signature"].encode(), bit).decode("latin-1")
    assert isinstance(scheme.verify(sent(headers, body, target=target), trusting("12345")), Refused)


@given(st.sampled_from([Provider.GITLAB, Provider.TOKEN, Provider.BASIC]), st.integers(min_value=0))
def test_no_bit_of_a_token_can_be_flipped(provider: Provider, bit: int) -> None:
    name, value = {
        Provider.GITLAB: ("x-gitlab-token", "sesame:open"),
        Provider.TOKEN: ("x-acme-signature", "Bearer sesame:open"),
        Provider.BASIC: ("authorization", "c2VzYW1lOm9wZW4="),
    }[provider]
    scheme = SCHEMES[provider]
    before = "Basic " if provider is Provider.BASIC else ""
    flipped = flip(value.encode(), bit).decode("utf-8", "surrogateescape")
    assert scheme.verify(sent({name: before + value}), trusting("sesame:open")) == Verified()
    assert isinstance(scheme.verify(sent({name: before + flipped}), trusting("sesame:open")), Refused)


@given(
    SCHEME,
    HEADERS,
    st.binary(max_size=100),
    st.lists(TEXTS, max_size=2),
    st.tuples(st.datetimes(timezones=st.just(UTC)), TEXTS),
)
@example(SCHEMES[Provider.STRIPE], {"stripe-signature": [f"t={'9' * 11},v1="]}, b"", ["x"], (NOW, "/"))
def test_nothing_that_is_received_makes_verification_raise_or_tell_a_secret(
    scheme: Scheme, headers: dict[str, list[str]], body: bytes, secrets: list[str], place: tuple[datetime, str]
) -> None:
    now, target = place
    verdict = scheme.verify(sent(headers, body, target=target), trusting(*secrets, now=now))
    assert isinstance(verdict, Refused)
    assert verdict.detail.isascii()


DOCUMENT_KEYS = st.sampled_from(
    ["type", "id", "event", "event_id", "challenge", "object_kind", "event_name", "CallStatus", "created", "timestamp"]
)


@given(
    SCHEME,
    HEADERS,
    st.binary(max_size=100),
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(DOCUMENT_KEYS, inner),
    ),
)
def test_nothing_that_is_received_makes_reading_raise(
    scheme: Scheme, headers: dict[str, list[str]], body: bytes, document: object
) -> None:
    assert isinstance(scheme.identify(headers, document), Identity | Challenge | Unreadable)
    assert isinstance(scheme.extract_document(headers, body), bytes | Mapping | Unreadable)


@given(
    st.builds(
        Verification,
        header=st.none() | TEXTS,
        prefix=TEXTS,
        template=TEXTS | st.from_regex(r"(\{(body|id|timestamp|x)\}|[.:{}])*", fullmatch=True),
        timestamp_header=st.none() | TEXTS,
        event_type_header=st.none() | TEXTS,
        event_type_field=st.none() | TEXTS,
        event_id_header=st.none() | TEXTS,
        challenge_parameter=st.none() | TEXTS,
    ),
    st.sampled_from([Provider.HMAC, Provider.TOKEN, Provider.BASIC, Provider.TWILIO]),
    st.none() | TEXTS,
)
def test_any_settings_are_followed_or_refused_with_their_place(
    verification: Verification, provider: Provider, public_url: str | None
) -> None:
    try:
        scheme = scheme_of(provider, Settings(public_url=public_url, verification=verification))
    except SettingsError as error:
        refused = error
    else:
        assert isinstance(scheme.verify(sent({}), trusting("x")), Refused)
        return
    assert refused.place[0] in {"verification", "public_url"}


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
