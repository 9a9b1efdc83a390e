"""What `explain` finds out about a user, from logs in memory."""

from collections.abc import Collection

from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import decode_event, decode_purchase
from dataflow.runtime.settings import Settings
from dataflow.streaming.partition_reader import TopicDecoder, Unreadable
from dataflow.tools.explain.collect import ObservedPartition
from dataflow.tools.explain.report import Report, build_report
from dataflow.tools.reference import Record

from .logs import LONG_AFTER, Logs, Message

SETTINGS = Settings(_env_file=None)
TO_THE_END = SETTINGS.model_copy(update={"stop_at_end": True})


def explained(
    logs: Logs,
    user: int = 1,
    rules: Rules = Rules(),
    settings: Settings = SETTINGS,
    as_of: int = LONG_AFTER,
    overtaken: Collection[str] = (),
) -> Report:
    partitions = []
    for source, records in logs.items():
        decode = decode_event if source.startswith("user-events") else decode_purchase
        partition = ObservedPartition(source, TopicDecoder(decode), rules.lateness, as_of, b"%d" % user)
        for record in records:
            partition.read(Message(record))
        partitions.append(partition)
    return build_report(b"%d" % user, partitions, rules, settings, as_of, overtaken)


def users(logs: Logs) -> set[int]:
    return {owner(source, record) for source, records in logs.items() for record in records} - {None}


def owner(source: str, record: Record) -> int | None:
    decode = decode_event if source.startswith("user-events") else decode_purchase
    try:
        return int(decode(record.value, 0).user)
    except Unreadable:
        return None
