"""A user's id: its text is the identity of the user, the key of every record written for it, and what is sharded."""

import msgspec

_MAX_LENGTH = 4_300  # characters; of whole numbers, what Python reads


def user_of(user_id: int) -> bytes:
    """The user with this number as id."""
    return b"%d" % user_id


def user_json(user: bytes, is_text: bool) -> bytes:
    """The user's id as JSON, as output rows carry it: a text, or the number that it is."""
    return msgspec.json.encode(user.decode()) if is_text else user


def parse_user(text: str) -> bytes:
    """The user whose id a person typed. Raises ValueError if no id looks like that."""
    if not 0 < len(text) <= _MAX_LENGTH or "\0" in text:
        raise ValueError(f"not a user's id: {text[:50]!r}")
    return text.encode()
