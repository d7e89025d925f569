"""Libraries of Hookledger."""
