"""Codecs of what crosses a process boundary: ledger facts, envelopes, CloudEvents, registry documents."""
