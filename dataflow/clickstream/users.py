"""A user's id: its text is the identity of the user, the key of every record written for it, and what is sharded.

Only this module knows that ids are whole numbers, so that their text is at once their JSON.
"""

import re

_MAX_DIGITS = 4_300  # of Python's own conversion from text to int, the sign included
_ID = re.compile(rf"-?[0-9]{{1,{_MAX_DIGITS - 1}}}")


def user_of(user_id: int) -> bytes:
    """The user with this id."""
    return b"%d" % user_id


def user_json(user: bytes) -> bytes:
    """The user's id as JSON, as output rows carry it."""
    return user


def parse_user(text: str) -> bytes:
    """The user whose id a person typed. Raises ValueError if no id looks like that."""
    if not _ID.fullmatch(text):
        raise ValueError(f"not a whole number: {text!r}")
    return user_of(int(text))
