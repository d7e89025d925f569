"""How providers sign, written after their documents and without our code, as the tests of receiving need it."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.common.domain.providers.settings import Algorithm, Settings, Verification
from libs.common.domain.providers.table import NO_SETTINGS, Provider

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
# The pair of the corpus, whose second half is its public key.
PRIVATE_KEY = "6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC_KEY = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="


def mac(key: bytes | str, signed: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(key.encode() if isinstance(key, str) else key, signed, algorithm).digest()


def base64_mac(key: bytes | str, signed: bytes, algorithm: str = "sha256") -> str:
    return base64.b64encode(mac(key, signed, algorithm)).decode()


def seconds(at: datetime) -> str:
    return str(int(at.timestamp()))


def stripe(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    t = seconds(at)
    return {"Stripe-Signature": f"t={t},v1={mac(secret, f'{t}.'.encode() + body).hex()}"}


def github(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    return {
        "X-Hub-Signature-256": f"sha256={mac(secret, body).hex()}",
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": hashlib.md5(body, usedforsecurity=False).hexdigest(),
    }


def gitlab(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    return {"X-Gitlab-Token": secret, "X-Gitlab-Event": "Push Hook"}


def slack(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    t = seconds(at)
    return {
        "X-Slack-Request-Timestamp": t,
        "X-Slack-Signature": f"v0={mac(secret, f'v0:{t}:'.encode() + body).hex()}",
    }


def shopify(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    return {
        "X-Shopify-Hmac-Sha256": base64_mac(secret, body),
        "X-Shopify-Topic": "orders/create",
        "X-Shopify-Webhook-Id": "b54557e4-bdd9-4b37-8a5f-bf7d70bcd043",
    }


def twilio_form(body: bytes, secret: str, url: str) -> dict[str, str]:
    fields = sorted(set(parse_qsl(body.decode(), keep_blank_values=True)))
    return {"X-Twilio-Signature": base64_mac(secret, (url + "".join(a + b for a, b in fields)).encode(), "sha1")}


def twilio_query(body: bytes) -> str:
    return f"?bodySHA256={hashlib.sha256(body).hexdigest()}"


def twilio_json(body: bytes, secret: str, url: str) -> dict[str, str]:
    """`url` ends in `twilio_query(body)`."""
    return {"X-Twilio-Signature": base64_mac(secret, url.encode(), "sha1")}


def standard(body: bytes, secret: str, at: datetime, *, family: str = "webhook") -> dict[str, str]:
    t = seconds(at)
    signature = base64_mac(base64.b64decode(secret.removeprefix("whsec_")), f"msg_1.{t}.".encode() + body)
    return {f"{family}-id": "msg_1", f"{family}-timestamp": t, f"{family}-signature": f"v1,{signature}"}


def asymmetric(body: bytes, at: datetime) -> dict[str, str]:
    """By the private half of `PUBLIC_KEY`."""
    t = seconds(at)
    key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(PRIVATE_KEY)[:32])
    signature = base64.b64encode(key.sign(f"msg_1.{t}.".encode() + body)).decode()
    return {"webhook-id": "msg_1", "webhook-timestamp": t, "webhook-signature": f"v1a,{signature}"}


# A sender of one's own, with everything that the generic scheme knows.

VERIFICATION = Verification(
    header="X-Acme-Signature",
    prefix="sha512=",
    algorithm=Algorithm.SHA512,
    template="{id}:{timestamp}:{body}",
    timestamp_header="X-Acme-Time",
    event_type_header="X-Acme-Event",
    event_id_header="X-Acme-Id",
)


def acme(body: bytes, secret: str, at: datetime) -> dict[str, str]:
    t = seconds(at)
    signed = f"evt-1:{t}:".encode() + body
    return {
        "X-Acme-Signature": f"sha512={mac(secret, signed, 'sha512').hex()}",
        "X-Acme-Time": t,
        "X-Acme-Event": "order/paid",
        "X-Acme-Id": "evt-1",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A provider whose signature covers the body, and nothing of the URL."""

    provider: Provider
    secret: str
    sign: Callable[[bytes, str, datetime], dict[str, str]]
    settings: Settings = NO_SETTINGS


SIGNERS = (
    Sender(provider=Provider.STRIPE, secret="whsec_of_stripe", sign=stripe),
    Sender(provider=Provider.GITHUB, secret="a secret of GitHub's", sign=github),
    Sender(provider=Provider.SLACK, secret="8f742231b10e8888abcd99yyyzzz85a5", sign=slack),
    Sender(provider=Provider.SHOPIFY, secret="hush", sign=shopify),
    Sender(provider=Provider.STANDARD_WEBHOOKS, secret=STANDARD_SECRET, sign=standard),
    Sender(provider=Provider.STANDARD_WEBHOOKS, secret=PUBLIC_KEY, sign=lambda body, _secret, at: asymmetric(body, at)),
    Sender(provider=Provider.GITLAB, secret=STANDARD_SECRET, sign=standard),
    Sender(provider=Provider.HMAC, secret="acme's", sign=acme, settings=Settings(verification=VERIFICATION)),
)
