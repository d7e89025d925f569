"""Each provider's request as bytes on the wire (`samples/`, whose README says what is whose): replayed, and tampered with.

What is signed with its time is judged by the time of a database whose clock stands where the sample was signed.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from deploy.stack.services import Service
from libs.common.domain import ids
from libs.common.domain.ids import Prefix
from tests.integration.ingress.raw import talk
from tests.integration.ingress.stand import Stand, Tenant

SAMPLES = Path(__file__).parent / "samples"
TWILIO_URL = "https://mycompany.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A file, what its source is set to, and what comes of it.

    Attributes:
        sent_at: when it was signed, in Unix seconds; None where the signature has no time.
        event: type and id of the message that it becomes; None where it becomes none.
        signed: the header whose last byte belongs to the signature.
        covers_body: whether the signature does.
    """

    file: str
    provider: str
    secret: str
    signed: str
    sent_at: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    status: int = 202
    answer: str | None = None
    event: tuple[str, str | None] | None = None
    covers_body: bool = True

    @property
    def bytes(self) -> bytes:
        return (SAMPLES / f"{self.file}.http").read_bytes()


STANDARD: dict[str, Any] = {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "sent_at": 1614265330}
STANDARD_ID = "msg_p5jXN8AQM9LWM0D4loKWxJek"
SLACK: dict[str, Any] = {"secret": "8f742231b10e8888abcd99yyyzzz85a5", "sent_at": 1531420618, "status": 200}
SLACK |= {"provider": "slack", "signed": "X-Slack-Signature"}
GITHUB: dict[str, Any] = {"provider": "github", "signed": "X-Hub-Signature-256"}
TWILIO: dict[str, Any] = {
    "provider": "twilio",
    "secret": "12345",
    "signed": "X-Twilio-Signature",
    "status": 204,
    "answer": "",
}
TWILIO |= {"settings": {"public_url": TWILIO_URL}}
GITLAB_ID = "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"
CHALLENGE = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P"

ACCEPTED: tuple[Sample, ...] = (
    Sample(
        file="stripe",
        provider="stripe",
        secret="webhook_secret",
        signed="Stripe-Signature",
        sent_at=1533204620,
        event=("customer.created", "evt_123"),
    ),
    Sample(
        file="github",
        secret="It's a Secret to Everybody",
        event=("issues", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        **GITHUB,
    ),
    Sample(
        file="github-published",
        secret="mysecret",
        event=("push", "0b989ba4-242f-11e5-81e1-c7b6966d2516"),
        **GITHUB,
    ),
    Sample(
        file="gitlab",
        provider="gitlab",
        secret="a-token-of-our-own-making",
        signed="X-Gitlab-Token",
        event=("push", GITLAB_ID),
        covers_body=False,
    ),
    Sample(file="gitlab-signed", provider="gitlab", signed="webhook-signature", event=("push", GITLAB_ID), **STANDARD),
    Sample(file="slack", answer="", event=("slash_command", None), **SLACK),
    Sample(file="slack-event", event=("app_mention", "Ev123ABC456"), **SLACK),
    Sample(file="slack-handshake", answer=CHALLENGE, **SLACK),
    Sample(
        file="shopify",
        provider="shopify",
        secret="hush",
        signed="X-Shopify-Hmac-Sha256",
        event=("orders.create", "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043"),
    ),
    Sample(file="twilio", event=("call", "5f0cf6f7-9f6d-4ef4-8f4c-1e5bd5c1d9c5"), **TWILIO),
    Sample(file="twilio-json", event=("webhook", "0c2f6a54-7c3b-4a7e-8a2f-0e7b5f7f3b11"), **TWILIO),
    Sample(
        file="standard-webhooks",
        provider="standard-webhooks",
        signed="webhook-signature",
        event=("contact.created", STANDARD_ID),
        **STANDARD,
    ),
    Sample(
        file="standard-webhooks-svix",
        provider="standard-webhooks",
        signed="svix-signature",
        event=("contact.created", STANDARD_ID),
        **STANDARD,
    ),
)
# Published to try a signature on, and no events: believed, and then not read.
BELIEVED: tuple[Sample, ...] = (
    Sample(
        file="github-documented", secret="It's a Secret to Everybody", status=400, answer="not valid JSON", **GITHUB
    ),
    Sample(
        file="standard-webhooks-published",
        provider="standard-webhooks",
        signed="webhook-signature",
        status=400,
        answer="type",
        **STANDARD,
    ),
)


@pytest.fixture(scope="module")
async def stand(stand: Stand) -> Stand:
    """With a database whose clock can be set: services look names up in their own schema before Postgres' own."""
    await stand.observer.execute(
        """
        CREATE TABLE hookledger.told_time (step interval NOT NULL);
        INSERT INTO hookledger.told_time VALUES ('0');
        CREATE FUNCTION hookledger.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE SECURITY DEFINER AS
            'SELECT pg_catalog.clock_timestamp() + step FROM hookledger.told_time';
        ALTER FUNCTION hookledger.create_partitions SET search_path = hookledger, pg_catalog;
        """
    )
    return stand


async def set_clock(stand: Stand, sent_at: int | None) -> None:
    """Let it be then. An ingress goes by the database's clock as of when it last read the registry."""
    step = "$1::timestamptz - pg_catalog.clock_timestamp()" if sent_at else "$1::interval"
    await stand.observer.execute(
        f"UPDATE hookledger.told_time SET step = {step}",  # noqa: S608  one of two texts
        datetime.fromtimestamp(sent_at, UTC) if sent_at else datetime.now(UTC) - datetime.now(UTC),
    )
    await stand.observer.execute("SELECT hookledger.create_partitions()")


async def look_at_the_clock(ingress: Service) -> None:
    """Ask for a source that nobody knows: it is looked for in the database, which tells its time with the answer."""
    unknown = ids.encode(Prefix.SOURCE, ids.lowest(1))
    request = f"POST /in/{unknown} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    assert (await talk(ingress.url, request.encode())).status == 404


async def source_of(stand: Stand, tenant: Tenant, sample: Sample) -> str:
    """The source that the sample's request line names."""
    text = sample.bytes.split()[1].decode().partition("?")[0].removeprefix("/in/")
    identity = ids.decode(Prefix.SOURCE, text)
    await stand.create_source(
        tenant.org, tenant.app, sample.provider, sample.secret, identity=identity, **sample.settings
    )
    return text


def with_one_byte_changed(sample: Sample) -> dict[str, bytes]:
    """The request with the first, the middle or the last byte of its body changed, or the last but one of its signature."""
    request = sample.bytes
    body = request.index(b"\r\n\r\n") + 4
    places = {"signature": request.index(b"\r\n", request.index(f"\r\n{sample.signed}: ".encode()) + 2) - 2}
    if sample.covers_body:
        places |= {"first": body, "middle": (body + len(request)) // 2, "last": len(request) - 1}
    return {
        name: request[:place] + bytes([request[place] ^ 1]) + request[place + 1 :] for name, place in places.items()
    }


@pytest.mark.parametrize("sample", ACCEPTED, ids=lambda sample: sample.file)
async def test_what_the_provider_sends_is_taken_to_the_byte_and_not_with_one_changed_nor_six_minutes_later(
    ingress: Service, stand: Stand, tenant: Tenant, sample: Sample
) -> None:
    await set_clock(stand, sample.sent_at)
    source = await source_of(stand, tenant, sample)
    tampered = {name: await talk(ingress.url, request) for name, request in with_one_byte_changed(sample).items()}
    assert {name: answer.status for name, answer in tampered.items()} == dict.fromkeys(tampered, 401)
    assert await messages(stand, source) == []

    answer = await talk(ingress.url, sample.bytes)
    assert answer.status == sample.status, answer.text
    if sample.answer is not None:
        assert answer.text.partition("\r\n\r\n")[2] == sample.answer
    kept = await messages(stand, source)
    assert [row["event_type"] for row in kept] == ([] if sample.event is None else [sample.event[0]])
    assert [row["body"] for row in kept] == ([] if sample.event is None else [sample.bytes.partition(b"\r\n\r\n")[2]])

    again = await talk(ingress.url, sample.bytes)
    recognised = sample.event is not None and sample.event[1] is not None
    assert again.status == sample.status
    assert ("Idempotent-Replayed: true" in again.text) is recognised

    if sample.sent_at is not None:
        await set_clock(stand, sample.sent_at + 360)
        await look_at_the_clock(ingress)
        assert (await talk(ingress.url, sample.bytes)).status == 400


@pytest.mark.parametrize("sample", BELIEVED, ids=lambda sample: sample.file)
async def test_a_published_signature_of_what_is_no_event_is_believed_and_the_rest_is_told(
    ingress: Service, stand: Stand, tenant: Tenant, sample: Sample
) -> None:
    await set_clock(stand, sample.sent_at)
    await source_of(stand, tenant, sample)
    for request in with_one_byte_changed(sample).values():
        assert (await talk(ingress.url, request)).status == 401
    answer = await talk(ingress.url, sample.bytes)
    assert answer.status == sample.status
    assert sample.answer is not None
    assert sample.answer in json.loads(answer.text.partition("\r\n\r\n")[2])["detail"]


async def messages(stand: Stand, source: str) -> list[dict[str, Any]]:
    rows = await stand.observer.fetch(
        """
        SELECT m.event_type, b.body FROM hookledger.message m JOIN hookledger.message_body b ON b.message = m.id
        WHERE m.source = $1
        """,
        ids.decode(Prefix.SOURCE, source),
    )
    return [dict(row) for row in rows]
