"""Operational messages: an organisation is told what becomes of its endpoints and deliveries."""
