"""The demo: Hookledger's main job on real input, from an empty database to a verified ledger, and a report on it."""
