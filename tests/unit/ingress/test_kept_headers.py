"""Which headers of a rejected request are kept."""

from services.ingress.rejections import kept_headers


def test_what_is_needed_to_verify_again_is_kept_in_order() -> None:
    kept = kept_headers(
        [
            ("Stripe-Signature", "a"),
            ("Webhook-Id", "b"),
            ("X-GitHub-Event", "c"),
            ("stripe-signature", "d"),
            ("Content-Type", "e"),
            ("X-Slack-Signature", "f"),
        ],
        {"stripe-signature", "webhook-id", "x-github-event"},
    )
    assert kept == {"stripe-signature": ["a", "d"], "webhook-id": ["b"], "x-github-event": ["c"], "content-type": ["e"]}


def test_what_authenticates_elsewhere_is_not() -> None:
    secret = ["Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "X-Gitlab-Token", "X-Forwarded-For"]
    assert kept_headers([(name, "sesame") for name in secret]) == {}


def test_what_a_jsonb_column_cannot_hold_is_replaced() -> None:
    assert kept_headers([("Content-Type", "a\0b\udcffc")]) == {"content-type": ["ab?c"]}


def test_headers_are_bounded_in_length_and_number() -> None:
    assert len(kept_headers([("Content-Type", "x" * 5000)])["content-type"][0]) == 1024
    assert len(kept_headers([(f"x-hookledger-{number}", "x") for number in range(100)])) == 32
