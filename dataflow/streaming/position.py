"""A record's place in its topic, partition and offset, packed into one integer."""

PARTITION_LIMIT = 1 << 16  # Kafka topics have far fewer partitions


def position(partition: int, offset: int) -> int:
    """Packs a partition and an offset; `divmod(position, PARTITION_LIMIT)` gives (offset, partition) again."""
    return offset * PARTITION_LIMIT + partition
