"""Texts that many rows share."""

from collections.abc import Callable
from typing import TypeVar

Id = TypeVar("Id")
Text = TypeVar("Text")


class Interned(dict[Id, Text]):
    """Texts of recent users or types: made once, hashed once, and shared by all rows that have them.

    Args:
        make: makes a text.
        most: this many are remembered.
    """

    def __init__(self, make: Callable[[Id], Text], most: int) -> None:
        super().__init__()
        self._make: Callable[[Id], Text] = make
        self._most = most

    def __missing__(self, key: Id) -> Text:
        if len(self) >= self._most:
            self.clear()
        text = self[key] = self._make(key)
        return text
