"""The errors that a user may cause, and may read without a traceback."""


class UserError(Exception):
    """A sentence that says what is wrong, what was got, what was expected and how to mend it."""
