"""Ingress: accepting messages, and the front door."""
