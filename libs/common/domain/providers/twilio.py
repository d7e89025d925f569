"""Twilio: calls and messages as forms, and the events of its event streams as JSON.

Source: https://www.twilio.com/docs/usage/security#validating-requests, its library's RequestValidator,
https://www.twilio.com/docs/usage/webhooks/webhooks-connection-overrides (the idempotency token),
https://www.twilio.com/docs/events/event-delivery-signature-validation
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qsl

from libs.common.domain.providers.reading import as_name, check_text, field, header, identity, rfc3339
from libs.common.domain.providers.scheme import (
    FORM,
    MAX_FORM_FIELDS,
    Challenge,
    Identity,
    Request,
    Scheme,
    Trust,
    Unreadable,
    by_name,
    media_type_of,
    parse_form,
)
from libs.common.domain.providers.settings import Settings, SettingsError
from libs.common.domain.signatures.rules import Headers, any_equal, only_value
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, malformed, mismatch

_HEADER: Final = "x-twilio-signature"
_RETRY_ID: Final = "i-twilio-idempotency-token"
_BODY_HASH: Final = "bodySHA256"
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{27}=")
_BASE: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?P<port>:[0-9]{1,5})?(?P<path>/[!-~]*)?"
)
_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


def _verify(request: Request, trust: Trust, *, public_url: str | None) -> Verdict:
    """Base64 HMAC-SHA1 over the URL as Twilio has it, and the form's fields, sorted; no time.

    What is signed of a form is its decoded fields, not its bytes. Any other body is signed by its SHA-256, which
    Twilio puts into the URL's query.
    """
    signature = only_value(request.headers, _HEADER)
    if isinstance(signature, Refused):
        return signature
    if not _SIGNATURE.fullmatch(signature):
        return malformed(f"the {_HEADER} is not base64 of 20 bytes")
    urls = _urls(request, public_url)
    if isinstance(urls, Refused):
        return urls
    fields = _signed_fields(request)
    if isinstance(fields, Refused):
        return fields
    signed = [(url + fields).encode("utf-8", "surrogatepass") for url in urls]
    expected = [base64.b64encode(hmac.digest(key, each, "sha1")) for key in trust.keys for each in signed]
    if not any_equal([signature.encode()], expected):
        return mismatch("the signature is not by a secret of this source, or of another URL")
    return Verified()


def _urls(request: Request, public_url: str | None) -> list[str] | Refused:
    """The ways in which Twilio may have written the URL: it names the default port in some products, not in others.

    Without a `public_url` the host is the one that the request names, under either scheme. Nobody gains by naming
    another: the path ends in this source's id, and no one but Twilio and the account can sign a URL. Forwarded
    headers are not looked at: the scheme is not worth believing a stranger for.
    """
    if public_url is not None:
        bases = [public_url.rstrip("/")]
    else:
        host = only_value(request.headers, "host")
        if isinstance(host, Refused):
            return host
        if "/" in host:  # would let the sender say where this server's path begins
            return malformed("the host is none")
        bases = [f"https://{host}", f"http://{host}"]
    found = []
    for base in bases:
        parts = _BASE.fullmatch(base)
        if parts is None:
            return malformed("the host is none")
        port = parts["port"] or _DEFAULT_PORTS[parts["scheme"]]
        host, path = f"{parts['scheme']}://{parts['host']}", f"{parts['path'] or ''}{request.target}"
        found += [f"{host}{path}", f"{host}{port}{path}"]
    return found


def _signed_fields(request: Request) -> str | Refused:
    """The part of the signed text that stands for the body."""
    query = request.target.partition("?")[2]
    try:
        parameters = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        return malformed("the query is not one")
    hashes = [value for name, value in parameters if name == _BODY_HASH]
    # Asked before the content type, which nobody signs: a signed JSON request without its body must not pass for a
    # form without fields.
    if hashes:
        if not any_equal(
            [hashes[0].encode("utf-8", "surrogatepass")], [hashlib.sha256(request.body).hexdigest().encode()]
        ):
            return mismatch(f"the {_BODY_HASH} is not that of the body")
        return "" if len(hashes) == 1 else malformed(f"the query holds more than one {_BODY_HASH}")
    fields = parse_form(request.body) if media_type_of(request.headers) == FORM else None
    if fields is None:
        return malformed(f"neither a form nor a {_BODY_HASH}")
    # As its library: of a repeated field each different value counts once.
    return "".join(name + value for name, value in sorted(set(fields)))


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    """A stream's event has a type and an id; a call or a message is named after what it is and how it stands."""
    if isinstance(document, Sequence) and not isinstance(document, str):
        return _identify_events(headers, document)
    return identity(_type(document), header(headers, _RETRY_ID))


def _identify_events(headers: Headers, events: Sequence[object]) -> Identity | Challenge | Unreadable:
    """CloudEvents in a batch; one is the default, and of several the first one's type stands for all."""
    first = events[0] if events else None
    only = first if len(events) == 1 else None
    event_id = header(headers, _RETRY_ID) if field(only, "id") is None else field(only, "id")
    return identity(as_name(field(first, "type")), event_id, occurred_at=rfc3339(field(first, "time")))


def _type(document: object) -> object:
    for name in ("EventType", "StatusCallbackEvent", "type"):
        if field(document, name) is not None:
            return as_name(field(document, name))
    for kind, statuses in (("message", ("MessageStatus", "SmsStatus")), ("call", ("CallStatus",))):
        for name in statuses:
            status = field(document, name)
            if isinstance(status, str):
                return as_name(f"{kind}.{status}")
    return "call" if field(document, "CallSid") is not None else "webhook"


SCHEME: Final = Scheme(
    verify=partial(_verify, public_url=None),
    identify=_identify,
    check_secret=check_text,
    form=by_name,
    # An empty answer: Twilio runs what stands in the body of any other.
    success_status=HTTPStatus.NO_CONTENT,
    evidence=frozenset({_HEADER, _RETRY_ID, "host", ":path"}),
)


def scheme(settings: Settings) -> Scheme:
    """Twilio's scheme behind the source's `public_url`.

    Raises:
        SettingsError: it is no URL to put a path behind.
    """
    url = settings.public_url
    if settings.verification is not None:
        raise SettingsError(("verification",), "Twilio's own is known: leave it out")
    if url is None:
        return SCHEME
    if not _BASE.fullmatch(url) or "?" in url or "#" in url:
        raise SettingsError(("public_url",), "it is such as https://hooks.example.com, where this server's paths begin")
    return replace(SCHEME, verify=partial(_verify, public_url=url))
