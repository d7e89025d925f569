"""What breaks the demo off."""


class DemoError(Exception):
    """A step did not go as it has to: one line that says which, and what came instead (exit code 1)."""
