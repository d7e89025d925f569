"""The services of Hookledger, which never import one another."""
