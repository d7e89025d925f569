"""CloudEvents 1.0: the event itself, and the forms in which a message carries it."""
