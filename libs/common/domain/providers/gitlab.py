"""GitLab: a token in a header, or a signing token, which is Standard Webhooks.

Source: https://docs.gitlab.com/user/project/integrations/webhooks/ ("Delivery headers", "Secret token"),
https://docs.gitlab.com/user/project/integrations/webhook_events/
"""

from dataclasses import replace
from typing import Final

from libs.common.domain.providers import standard_webhooks
from libs.common.domain.providers.reading import check_ascii, field, header, identity
from libs.common.domain.providers.scheme import Challenge, Identity, Request, Scheme, Trust, Unreadable
from libs.common.domain.signatures import standard
from libs.common.domain.signatures.rules import Headers, any_equal, only_value
from libs.common.domain.signatures.verdict import Refused, Verdict, Verified, mismatch

_HEADER: Final = "x-gitlab-token"
_RETRY_ID: Final = "idempotency-key"
_EVENT_ID: Final = "x-gitlab-event-uuid"


def _verify(request: Request, trust: Trust) -> Verdict:
    """By the signature where there is one, otherwise by the token.

    A signing token is never compared with the header: who could make a source accept it there would have turned a
    signature into a password.
    """
    signing = [secret for secret in trust.secrets if standard.is_secret(secret)]
    if standard.SIGNATURE_HEADER in request.headers and signing:
        return standard_webhooks.verify(request, replace(trust, secrets=signing))
    token = only_value(request.headers, _HEADER)
    if isinstance(token, Refused):
        return token
    tokens = replace(trust, secrets=[secret for secret in trust.secrets if secret not in signing]).keys
    if not any_equal([token.encode()], tokens):
        return mismatch(f"the {_HEADER} is not a secret of this source")
    return Verified()


def _identify(headers: Headers, document: object) -> Identity | Challenge | Unreadable:
    # X-Gitlab-Event is prose ("Push Hook"); hooks of groups and of the whole system have no object_kind.
    kind = field(document, "object_kind")
    event_type = field(document, "event_name") if kind is None else kind
    # The first two are of one delivery; the last one is shared by all events of a chain that one hook set off, and
    # stands in only where an older GitLab sends nothing better.
    for name in (standard.ID_HEADER, _RETRY_ID, _EVENT_ID):
        if name in headers:
            return identity(event_type, header(headers, name))
    return identity(event_type, None)


def _check_secret(text: str) -> str | None:
    return standard_webhooks.check_secret(text) if standard.is_secret(text) else check_ascii(text)


SCHEME: Final = Scheme(
    verify=_verify,
    identify=_identify,
    check_secret=_check_secret,
    evidence=standard.HEADERS | {_RETRY_ID, _EVENT_ID, "x-gitlab-event"},
)
