"""What the services share: the pure core, the contracts, and the shells around Postgres, RabbitMQ and the process."""
