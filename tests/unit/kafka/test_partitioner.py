"""Keys choose the partitions that other programs would choose for them."""

from zlib import crc32

import pytest

from dataflow.kafka.partitioner import PARTITIONERS, murmur2


@pytest.mark.parametrize(
    ("key", "java"),
    # from Apache Kafka's own UtilsTest
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_that_of_java(key, java):
    assert murmur2(key) == java & 0x7FFF_FFFF


@pytest.mark.parametrize("length", range(9))
def test_murmur2_takes_keys_of_any_length(length):
    assert 0 <= murmur2(b"\xff" * length) <= 0x7FFF_FFFF


@pytest.mark.parametrize("key", [b"1", b"-7", b"12345678901234567890", b""])
def test_crc32_is_that_of_librdkafka(key):
    assert PARTITIONERS["crc32"](key) == crc32(key)


def test_crc32_of_a_known_key():
    assert PARTITIONERS["crc32"](b"123456789") == 0xCBF43926  # the checksum's own test value
