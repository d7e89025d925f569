"""Postgres: pool, migrations, the ledger, the registry's snapshot."""
