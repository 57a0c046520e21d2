"""The error that a user can mend: main.py shows it as one line and ends with status 2."""


class UserError(ValueError):
    """Bad input, a missing or damaged file, a setting that can't work: one line that says what to do."""


class ProcessError(UserError):
    """A process that this one needs has ended: of several, whichever meets it tells it."""
