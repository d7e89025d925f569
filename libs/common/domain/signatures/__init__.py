"""Webhook signatures: `standard` and `xwebhook`, over the verdicts and rules that every scheme shares.

Those that only providers use stand with the provider, in `libs.common.domain.providers`. All of them take the body as
the bytes that came or will go, never as something parsed.
"""
