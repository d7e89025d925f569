"""Those who send: a payment provider, a code host, an application over HTTP, and a service over the broker."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import stripe

_PAYLOADS: Final = Path(__file__).parent / "payloads"

STRIPE_SECRET: Final = "whsec_" + secrets.token_urlsafe(24)
GITHUB_SECRET: Final = secrets.token_urlsafe(24)

PAYMENT: Final = (_PAYLOADS / "payment_intent.succeeded.json").read_bytes()
PUSH: Final = (_PAYLOADS / "push.json").read_bytes()
ORDER: Final = b'{"type":"order.completed","data":{"order":1042,"total":42.00,"currency":"EUR"}}'
SHIPMENT: Final = {"type": "shipment.sent", "data": {"order": 1042, "parcels": 2}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A message that was accepted, and the exact bytes that have to reach every receiver.

    Attributes:
        event_type: what happened.
        payload: the bytes.
        id: as it was answered; None for what went to the broker, which answers without one.
    """

    event_type: str
    payload: bytes
    id: str | None


def stripe_headers(payload: bytes, secret: str = STRIPE_SECRET) -> dict[str, str]:
    """As Stripe sends its events: signed by Stripe's own library, at this moment."""
    signature = stripe.WebhookSignature.generate_signature_header(payload.decode(), secret)
    return {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature}


def github_headers(payload: bytes, event: str) -> dict[str, str]:
    """As GitHub sends its events."""
    signature = hmac.new(GITHUB_SECRET.encode(), payload, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "User-Agent": "GitHub-Hookshot/044aadd",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958",
        "X-Hub-Signature-256": f"sha256={signature}",
    }
