"""What is sent: one row of user-events or purchases, already encoded."""

from typing import NamedTuple


class Row(NamedTuple):
    """One message to be."""

    time: float  # event time, Unix seconds; the same as in `value`
    purchase: bool  # goes to purchases; user-events otherwise
    user_id: int | str
    value: bytes  # a JSON object
