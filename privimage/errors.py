"""The errors that a user may cause, and may read without a traceback."""


class UserError(Exception):
    """A sentence that says what is wrong, what was got, what was expected and how to mend it; rarely several lines.

    It may quote a file from anywhere, so no line holds control characters: none reaches a terminal.
    """

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(printable, lines)))


def printable(text: str) -> str:
    """The text on one line, without control characters, in characters that every file and terminal takes."""
    if text.isprintable():  # which lone surrogates are not
        return text
    safe = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in safe)
