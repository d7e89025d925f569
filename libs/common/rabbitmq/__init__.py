"""RabbitMQ: topology, publishing with confirms and deadlines, consuming, reconnecting."""
