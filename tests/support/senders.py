"""What providers send: requests signed as their own libraries do it."""

import hashlib
import hmac
from datetime import UTC, datetime

import stripe
from standardwebhooks.webhooks import Webhook

STRIPE_SECRET = "whsec_5WbX5kEWLlfzsGNjH64I8lOOqUB6e8FH"


def stripe_headers(body: bytes, secret: str, *, timestamp: int | None = None) -> dict[str, str]:
    """Signed by Stripe's library."""
    signature = stripe.WebhookSignature.generate_signature_header(body.decode(), secret, timestamp)
    return {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": signature}


def github_headers(body: bytes, secret: str, *, event: str, delivery: str) -> dict[str, str]:
    """Signed as GitHub's documentation says."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={signature}",
    }


def standard_headers(body: bytes, secret: str, *, message: str, at: datetime | None = None) -> dict[str, str]:
    """Signed by the library of Standard Webhooks."""
    when = at or datetime.now(UTC)
    return {
        "Content-Type": "application/json",
        "webhook-id": message,
        "webhook-timestamp": str(int(when.timestamp())),
        "webhook-signature": Webhook(secret).sign(message, when, body.decode()),
    }
