"""The registry: applications, endpoints, sources, event types and keys, and what became of the messages."""
