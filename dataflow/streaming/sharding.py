"""Shards: groups of users that are processed together, and the workers that they are on.

The engine sends a key to the worker that its hash names; the keys "0" to "7" would go six to one worker of two, and two
to the other. So a shard's key ends in a suffix that is chosen so that Bytewax routes shard i to worker i modulo their
number, as it distributes the partitions of sources and sinks. Where there are as many partitions as shards, and
producers choose partitions by crc32 as librdkafka does, all rows of a user stay on one worker from end to end.
"""

from collections.abc import Callable
from itertools import count
from zlib import crc32

from dataflow.streaming.batches import PolledBatch, ShardBatch
from dataflow.streaming.time import TimedRow

_EVEN = 120  # shards are spread evenly over this many workers, and over any number that divides it: 2, 3, 4, 5, 6, 8
_MASK = 0xFFFF_FFFF_FFFF_FFFF


def sharder(shards: int) -> Callable[[PolledBatch], list[tuple[str, ShardBatch]]]:
    """Makes what divides a polled batch by user. Every shard gets a batch, with or without rows: it carries the progress."""
    keys = [key_of(shard) for shard in range(shards)]

    def shard(poll: PolledBatch) -> list[tuple[str, ShardBatch]]:
        parts: list[list[TimedRow]] = [[] for _ in keys]
        for row in poll.rows:
            parts[crc32(row.user) % shards].append(row)  # `shard_of`, without a call for every row
        return [(key, ShardBatch(rows, poll.time)) for key, rows in zip(keys, parts, strict=True)]

    return shard


def shard_of(user: bytes, shards: int) -> int:
    """The number of a user's shard."""
    return crc32(user) % shards


def key_of(shard: int) -> str:
    """The key of a shard: its number, and the first suffix that routes it to its worker. It never changes."""
    keys = (f"{shard}.{number}" for number in count())
    return next(key for key in keys if (engine_hash(key) - shard) % _EVEN == 0)


def number_of(key: str) -> int:
    """The number of the shard with this key."""
    return int(key.partition(".")[0])


def engine_hash(key: str) -> int:
    """The engine sends a key to the worker of this number, modulo the number of workers.

    SipHash-1-3 with zero keys (the `DefaultHasher` of Rust) of the text followed by the byte 0xFF; see Aumasson and
    Bernstein, "SipHash: a fast short-input PRF", 2012.
    """
    data = key.encode() + b"\xff"
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    state = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v0, v1, v2, v3 = _sip_round(*state[:3], state[3] ^ word)
        state = v0 ^ word, v1, v2, v3
    v0, v1, v2, v3 = state
    state = v0, v1, v2 ^ 0xFF, v3
    for _ in range(3):
        state = _sip_round(*state)
    v0, v1, v2, v3 = state
    return v0 ^ v1 ^ v2 ^ v3


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0, v2 = v0 + v1 & _MASK, v2 + v3 & _MASK
    v1, v3 = _rotated(v1, 13) ^ v0, _rotated(v3, 16) ^ v2
    v0 = _rotated(v0, 32)
    v2, v0 = v2 + v1 & _MASK, v0 + v3 & _MASK
    v1, v3 = _rotated(v1, 17) ^ v2, _rotated(v3, 21) ^ v0
    return v0, v1, _rotated(v2, 32), v3


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> 64 - bits) & _MASK
