"""Errors that a user can mend; main.py shows them as one line and ends with status 2.

raise UserError("batch_size is 0: choose 1 to 1438, the training images")
"""


class UserError(ValueError):
    """Bad input, a missing or damaged file, or a setting that can't work; its text is one line that says what to do."""


class ProcessError(UserError):
    """A process that this one needs has ended, such as a data loader's; in a run of several, each may report it."""
