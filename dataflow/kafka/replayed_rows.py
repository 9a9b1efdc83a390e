"""The rows of an output partition that a replay makes again, each to be skipped once.

There may be millions of them, if a backlog was read at full speed and the job was killed before its next snapshot. So
more than some thousands are kept in a temporary SQLite file, and a snapshot holds one bit for each.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable

import msgspec

from dataflow.streaming.errors import UserError

_MAX_IN_MEMORY = 10_000  # rows of one partition: 2 MB


class PendingRows(msgspec.Struct, array_like=True):
    """Which rows of a partition a replay has not made again yet, as a snapshot holds them."""

    first: int = 0  # offset of the first bit
    bits: bytes = b""  # for each offset from `first` on, lowest bit first: 1 if the row is pending
    digests: list[bytes] = []  # of rows whose offsets are not known: from states of version 4

    def __contains__(self, offset: int) -> bool:
        index, bit = divmod(offset - self.first, 8)
        return 0 <= index < len(self.bits) and bool(self.bits[index] >> bit & 1)


class ReplayedRows:
    """The rows, by digest.

    Args:
        rows: offset and digest of each row, in order of offsets.
        digests: of further rows whose offsets are not known.
    """

    def __init__(self, rows: Iterable[tuple[int, bytes]] = (), digests: Iterable[bytes] = ()) -> None:
        self._unplaced = Counter(digests)
        self._offsets: dict[bytes, list[int]] = {}  # by digest, descending
        self._database: sqlite3.Connection | None = None
        self._first = 0
        self._bits = bytearray()
        self._count = self._unplaced.total()
        batch: list[tuple[bytes, int]] = []
        for offset, digest in rows:
            if not self._bits:
                self._first = offset
            self._set(offset)
            self._count += 1
            batch.append((digest, offset))
            if len(batch) == _MAX_IN_MEMORY:
                self._store(batch)
                batch = []
        if self._count > _MAX_IN_MEMORY:
            self._store(batch)
        else:
            for digest, offset in reversed(batch):
                self._offsets.setdefault(digest, []).append(offset)

    def __len__(self) -> int:
        return self._count

    def take(self, digest: bytes) -> bool:
        """Whether a copy of the row is there; each copy can be taken once."""
        if not self._count:
            return False
        if digest in self._unplaced:
            self._unplaced[digest] -= 1
            self._unplaced += Counter()  # drops a count of zero
        elif (offset := self._take_offset(digest)) is not None:
            index, bit = divmod(offset - self._first, 8)
            self._bits[index] &= ~(1 << bit)
        else:
            return False
        self._count -= 1
        if not self._count:
            self.clear()
        return True

    def pending(self) -> PendingRows:
        """The rows that have not been taken."""
        bits = self._bits.lstrip(b"\0")
        first = self._first + 8 * (len(self._bits) - len(bits))
        return PendingRows(first, bytes(bits.rstrip(b"\0")), list(self._unplaced.elements()))

    def clear(self) -> None:
        """Forgets all rows."""
        self._unplaced.clear()
        self._offsets.clear()
        self._bits.clear()
        self._count = 0
        if self._database is not None:
            self._database.close()
            self._database = None

    def _set(self, offset: int) -> None:
        index, bit = divmod(offset - self._first, 8)
        self._bits.extend(bytes(index + 1 - len(self._bits)))
        self._bits[index] |= 1 << bit

    def _take_offset(self, digest: bytes) -> int | None:
        if self._database is None:
            offsets = self._offsets.get(digest)
            if offsets is None:
                return None
            offset = offsets.pop()
            if not offsets:
                del self._offsets[digest]
            return offset
        row = self._database.execute("SELECT min(offset) FROM rows WHERE digest = ?", (digest,)).fetchone()
        if row[0] is not None:
            self._database.execute("DELETE FROM rows WHERE digest = ? AND offset = ?", (digest, row[0]))
        found: int | None = row[0]
        return found

    def _store(self, batch: list[tuple[bytes, int]]) -> None:
        try:
            if self._database is None:
                # "": a file that SQLite makes and deletes itself; workers are threads, and one may be built in another
                self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
                self._database.execute("PRAGMA journal_mode = OFF")
                self._database.execute("CREATE TABLE rows (digest, offset, PRIMARY KEY (digest, offset)) WITHOUT ROWID")
                self._database.execute("BEGIN")  # never committed: nothing outlives this process
            self._database.executemany("INSERT INTO rows VALUES (?, ?)", batch)
        except sqlite3.Error as error:
            raise UserError(
                f"no room for the rows that a replay must skip: {error}; SQLITE_TMPDIR names another directory"
            ) from None
