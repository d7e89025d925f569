"""Webhook signatures: one module for each scheme, over the verdicts and rules that they share.

Signing: `standard` and `xwebhook`. Verifying: `standard`, `stripe` and `github`. All of them take the body as the
bytes that came or will go, never as something parsed.
"""
