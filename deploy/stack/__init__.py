"""The local stack: finds or starts Postgres and RabbitMQ, then runs the three services on loopback.

Everything it writes lies under `.hookledger/` in the checkout; nothing is installed system-wide.
"""
