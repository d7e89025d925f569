"""What the launcher tells a user whose machine, settings or command it cannot work with."""


class StackError(Exception):
    """Something that the user can mend: one line that says what happened and what to do (exit code 2)."""
