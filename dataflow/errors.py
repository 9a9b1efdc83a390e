"""Mistakes that a user can mend, told in one line."""


class UserError(Exception):
    """Something outside the program is wrong; the text is one line that says what to do."""
