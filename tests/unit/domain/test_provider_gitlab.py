"""GitLab: a token, or a signing token after Standard Webhooks."""

import pytest

from libs.common.domain.providers.gitlab import SCHEME
from libs.common.domain.providers.scheme import Identity, Unreadable
from libs.common.domain.signatures.verdict import RefusalReason, Verdict, Verified
from tests.support import signing
from tests.support.signing import STANDARD_SECRET
from tests.support.trust import NOW, reason, sent, trusting

BODY = b'{"object_kind":"push"}'
PUSH = {"object_kind": "push"}


def judge(headers: dict[str, str], *secrets: str) -> Verdict:
    return SCHEME.verify(sent(headers, BODY), trusting(*secrets))


def test_the_token_of_the_source_is_believed_while_it_rotates_too() -> None:
    assert judge({"X-Gitlab-Token": "one"}, "two", "one") == Verified()


@pytest.mark.parametrize("token", ["", "One", "one ", "onetwo", "on"])
def test_any_other_token_is_not(token: str) -> None:
    assert reason(judge({"X-Gitlab-Token": token}, "one")) is RefusalReason.MISMATCH


def test_a_repeated_or_missing_token_is_refused() -> None:
    assert reason(SCHEME.verify(sent({"x-gitlab-token": ["one", "one"]}), trusting("one"))) is RefusalReason.MALFORMED
    assert reason(judge({}, "one")) is RefusalReason.MISSING


def test_a_signing_token_verifies_signatures() -> None:
    assert judge(signing.standard(BODY, STANDARD_SECRET, NOW), STANDARD_SECRET) == Verified()


def test_a_signing_token_is_no_password() -> None:
    assert reason(judge({"X-Gitlab-Token": STANDARD_SECRET}, STANDARD_SECRET)) is RefusalReason.MISMATCH


def test_from_a_token_one_rotates_to_a_signing_token() -> None:
    signed = signing.standard(BODY, STANDARD_SECRET, NOW)
    assert judge(signed, STANDARD_SECRET, "one") == Verified()
    assert judge({"X-Gitlab-Token": "one"}, STANDARD_SECRET, "one") == Verified()
    # Newer releases may sign although the source knows only the token.
    assert judge(signed | {"X-Gitlab-Token": "one"}, "one") == Verified()


def test_the_type_is_the_object_kind_or_for_groups_and_systems_the_event_name() -> None:
    assert SCHEME.identify({}, PUSH) == Identity(event_type="push", event_id=None)
    document = {"event_name": "user_add_to_group"}
    assert SCHEME.identify({}, document) == Identity(event_type="user_add_to_group", event_id=None)
    assert isinstance(SCHEME.identify({}, {}), Unreadable)


def test_repetitions_share_the_best_id_that_was_sent() -> None:
    headers = {"webhook-id": ["w"], "idempotency-key": ["i"], "x-gitlab-event-uuid": ["u"]}
    for event_id in ("w", "i", "u"):
        assert SCHEME.identify(headers, PUSH) == Identity(event_type="push", event_id=event_id)
        headers.pop(next(iter(headers)))


@pytest.mark.parametrize("secret", ["whsec_short", "tökén", "to\nken", ""])
def test_a_secret_that_could_never_match_is_refused(secret: str) -> None:
    assert SCHEME.check_secret(secret) is not None
