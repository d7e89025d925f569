"""The `x-webhook` profile: a plain signed form for receivers that know nothing of Standard Webhooks.

The body wraps the payload; its HMAC, in hex, is keyed with the secret exactly as a person reads it. So a receiver is
one line in any language: `"sha256=" + hmac_sha256(secret_text, body).hex()`.
"""

import base64
import json
from datetime import UTC, datetime

from libs.common.domain.signatures.rules import hmac_sha256


def wrap(
    *, message_id: str, event_type: str, accepted_at: datetime, payload: bytes, content_type: str, is_json: bool
) -> bytes:
    """The body `{"id","event","timestamp","data"}` of a message, the same bytes on each attempt.

    Args:
        message_id: the message's id.
        event_type: the message's event type.
        accepted_at: when the message was accepted (aware); sent as RFC 3339 in UTC with milliseconds, cut not rounded.
        payload: the message's exact bytes.
        content_type: what the payload was sent as; told to the receiver where the payload is not JSON.
        is_json: the payload passed the strict JSON check when it was accepted. Its bytes are then spliced in as
            they are, never parsed and written anew, which is why the check must have been made: in unchecked bytes a
            comma would add fields to the body. Any other payload becomes `{"base64","contentType"}`, the form in
            which the API reads it back.
    """
    timestamp = accepted_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return b"".join(
        (
            b'{"id":',
            json.dumps(message_id).encode(),
            b',"event":',
            json.dumps(event_type).encode(),
            b',"timestamp":"',
            timestamp.encode(),
            b'","data":',
            payload if is_json else _opaque(payload, content_type),
            b"}",
        )
    )


def headers(secret: str, *, body: bytes, event_type: str, attempt_id: str) -> dict[str, str]:
    """The headers of one attempt to send `body` (as `wrap` made it).

    Args:
        secret: the text as shown (`whsec_…`); its UTF-8 bytes are the key. One secret only: the header has room for
            one signature, so during a rotation the newest signs.
        body: the whole body, as it is sent.
        event_type: the message's event type.
        attempt_id: sent as `X-Webhook-Delivery`; a fresh one for each attempt.
    """
    return {
        "X-Webhook-Signature": "sha256=" + hmac_sha256(secret.encode(), body).hex(),
        "X-Webhook-Event": event_type,
        "X-Webhook-Delivery": attempt_id,
    }


def _opaque(payload: bytes, content_type: str) -> bytes:
    form = {"base64": base64.b64encode(payload).decode(), "contentType": content_type}
    return json.dumps(form, separators=(",", ":")).encode()
