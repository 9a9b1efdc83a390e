"""Where partitions begin and end: the one question to brokers for offsets, and the loop that repeats it."""

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, NamedTuple, TypeVar, cast

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from dataflow.kafka.client import while_waiting
from dataflow.kafka.replaceable import Admin
from dataflow.observability import logs
from dataflow.streaming.errors import START_OVER, UserError

log = logging.getLogger("visits")

PartitionId = tuple[str, int]  # topic and partition
Answer = TypeVar("Answer")

TIMEOUT_S = 5.0  # for one answer
_MARGIN_S = 1.0  # beyond that, until the client reports that there is none
_RETRY_INTERVAL_S = 0.2
_TELL_AFTER_S = 10.0
_GONE_AFTER_S = 10.0  # a broker that has just started may not know a topic yet
GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
FORBIDDEN = (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED)

# the client's stubs have these functions without types
_EARLIEST = cast(OffsetSpec, cast(Any, OffsetSpec).earliest())
_LATEST = cast(OffsetSpec, cast(Any, OffsetSpec).latest())


class EndOffset(NamedTuple):
    """The offset after a partition's last row, and the epoch of its leader (None: not reported)."""

    offset: int
    leader_epoch: int | None


def source_name(topic: str, partition: int) -> str:
    """The name of a partition as a source of event time, and in messages: "topic/partition"."""
    return f"{topic}/{partition}"


def known_end_offsets(
    admin: Admin, partition_ids: Iterable[PartitionId], timeout_s: float = TIMEOUT_S
) -> dict[PartitionId, EndOffset]:
    """The ends of those partitions whose leaders answer in time; others are left out."""
    ends, _ = _list_offsets(admin, partition_ids, _LATEST, timeout_s)
    return ends


def end_offsets(
    admin: Admin,
    partition_ids: Iterable[PartitionId],
    timeout_s: float = TIMEOUT_S,
    committed_only: bool = False,
) -> dict[PartitionId, EndOffset]:
    """The ends of partitions; with `committed_only`, up to the first transaction that is still open.

    Raises KafkaException unless all leaders answer in time.
    """
    return _all_offsets(admin, partition_ids, _LATEST, timeout_s, committed_only)


def earliest_offsets(
    admin: Admin, partition_ids: Iterable[PartitionId], timeout_s: float = TIMEOUT_S
) -> dict[PartitionId, int]:
    """The offsets of the first rows of partitions. Raises KafkaException unless all leaders answer in time."""
    begins = _all_offsets(admin, partition_ids, _EARLIEST, timeout_s)
    return {partition_id: begin.offset for partition_id, begin in begins.items()}


def retry_until_answered(ask: Callable[[], Answer], on_retry: Callable[[], None]) -> Answer:
    """Asks until there is an answer, however long an outage lasts. Says so once if that takes more than 10 s.

    Args:
        ask: raises KafkaException if there is no answer.
        on_retry: called before each further attempt.

    Raises:
        UserError: the job lacks a permission, or a topic is gone, which asking again does not change.
    """
    began = time.monotonic()
    gone_since: float | None = None
    told = False
    while True:
        try:
            answer = ask()
        except KafkaException as problem:
            error = problem.args[0]
        else:
            if told:
                log.info("Kafka has answered", extra=logs.event("kafka-answers"))
            return answer
        if error.code() in FORBIDDEN:
            raise not_allowed("look after the output topics and the job's consumer groups", error)
        now = time.monotonic()
        gone_since = (gone_since or now) if error.code() in GONE else None
        if gone_since is not None and now > gone_since + _GONE_AFTER_S:
            raise UserError(f"a topic is gone: was it deleted? ({error.str()}) Its rows are lost with it; {START_OVER}")
        if not told and now > began + _TELL_AFTER_S:
            log.warning("waiting for an answer from Kafka: %s", error.str(), extra=logs.event("kafka-silent"))
            told = True
        on_retry()
        while_waiting()
        time.sleep(_RETRY_INTERVAL_S)


def not_allowed(action: str, error: KafkaError) -> UserError:
    """The error for a missing permission; `action` follows "not allowed to"."""
    return UserError(f"not allowed to {action} ({error.str()}); grant it and start again")


def _all_offsets(
    admin: Admin,
    partition_ids: Iterable[PartitionId],
    which: OffsetSpec,
    timeout_s: float,
    committed_only: bool = False,
) -> dict[PartitionId, EndOffset]:
    partition_ids = list(partition_ids)
    offsets, failure = _list_offsets(admin, partition_ids, which, timeout_s, committed_only)
    if failure is not None:
        for topic in {topic for topic, _ in partition_ids}:  # or librdkafka goes on asking the former leaders
            admin.list_topics(topic, timeout=timeout_s)
        raise failure
    return offsets


def _list_offsets(
    admin: Admin,
    partition_ids: Iterable[PartitionId],
    which: OffsetSpec,
    timeout_s: float,
    committed_only: bool = False,
) -> tuple[dict[PartitionId, EndOffset], KafkaException | None]:
    """The offsets that leaders report in time, and why any other one is missing."""
    asked = {TopicPartition(*partition_id): which for partition_id in partition_ids}
    level = IsolationLevel.READ_COMMITTED if committed_only else IsolationLevel.READ_UNCOMMITTED
    deadline = time.monotonic() + timeout_s + _MARGIN_S
    offsets: dict[PartitionId, EndOffset] = {}
    failure: KafkaException | None = None
    if not asked:
        return offsets, failure
    try:
        answers = admin.list_offsets(asked, isolation_level=level, request_timeout=timeout_s)
    except KafkaException as error:
        return offsets, error
    for partition, answer in answers.items():
        try:
            info = result_by(answer, deadline)
        except KafkaException as error:
            failure = error
            continue
        if info.offset >= 0:
            offsets[partition.topic, partition.partition] = EndOffset(info.offset, info.leader_epoch)
        else:  # for a broker that cannot be reached librdkafka does not always report an error
            failure = KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return offsets, failure


def result_by(answer: Future[Any], deadline: float) -> Any:
    """What an admin client answers until a monotonic time. Raises KafkaException if it is an error, or none has come.

    The limit is our own: while a broker is frozen, the client exceeds its request timeout by minutes.
    """
    try:
        return answer.result(max(0.0, deadline - time.monotonic()))
    except FutureTimeoutError:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
