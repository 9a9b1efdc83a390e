"""Which partition of an output topic a key belongs to, the same for all topics."""

from collections.abc import Callable
from zlib import crc32

_MASK = 0xFFFF_FFFF


def murmur2(key: bytes) -> int:
    """The hash by which Java's producer chooses a partition, as a positive number.

    MurmurHash2 by Austin Appleby, with the seed and the final mask of Apache Kafka's `Utils.murmur2`, `toPositive`.
    """
    multiplier = 0x5BD1_E995
    digest = 0x9747_B28C ^ len(key)
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * multiplier & _MASK
        word = (word ^ word >> 24) * multiplier & _MASK
        digest = (digest * multiplier & _MASK) ^ word
    if whole < len(key):
        digest = (digest ^ int.from_bytes(key[whole:], "little")) * multiplier & _MASK
    digest = (digest ^ digest >> 13) * multiplier & _MASK
    return (digest ^ digest >> 15) & 0x7FFF_FFFF


PARTITIONERS: dict[str, Callable[[bytes], int]] = {
    "crc32": crc32,  # librdkafka's default for messages with a key
    "murmur2": murmur2,
}
