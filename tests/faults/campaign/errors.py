"""What a campaign finds while it does its harm, before any record is looked at."""


class FaultFailedError(Exception):
    """The platform did not take the fault as it should: it does not start, stop or rebuild."""
