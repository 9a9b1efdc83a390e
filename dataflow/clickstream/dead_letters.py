"""Why a message cannot be read: the text of a dead letter's `reason` header, and its category for metrics."""

import msgspec

from dataflow.streaming.partition_reader import Unreadable

# what decoding raises for a message that is no row; msgspec's errors are ValueErrors too
DECODE_ERRORS = UnicodeDecodeError, RecursionError, ValueError

# categories, the `reason` label of the metric; `ahead` is that of the partition reader
KINDS = ("json", "fields", "time", "ahead", "amount", "encoding", "empty")


def unreadable(value: bytes, error: Exception) -> Unreadable:
    """What is wrong with a message whose decoding raised one of `DECODE_ERRORS`."""
    if isinstance(error, UnicodeDecodeError):
        return Unreadable(f"not UTF-8: {error.reason} at byte {error.start}", "encoding")
    if isinstance(error, RecursionError):
        return Unreadable("JSON is nested too deeply", "json")
    if isinstance(error, msgspec.ValidationError):
        return Unreadable(str(error), "fields")
    if not value:
        return Unreadable("the message is empty", "empty")
    return Unreadable(str(error), "json")  # not JSON, or a number with too many digits


def no_value() -> Unreadable:
    """A tombstone: a message without a value."""
    return Unreadable("the message has no value", "empty")


def out_of_range() -> Unreadable:
    """A timestamp of before year 1 or after year 9999, as in milliseconds."""
    return Unreadable("timestamp is out of range; it must be in seconds", "time")


def not_a_number() -> Unreadable:
    """An amount that is text, an object or the like."""
    return Unreadable("amount is not a number", "amount")


def too_large_a_number() -> Unreadable:
    """An amount beyond a double."""
    return Unreadable("amount is out of range", "amount")
