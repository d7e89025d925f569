"""The dispatcher: fan-out, signed delivery, retries, the ledger of attempts and its projections."""
