"""Refuses a change of settings under which rows that are in the outputs would be written again, in another form.

The outputs note of which inputs and under which settings their rows were written (see `dataflow.kafka.job_metadata`).
A replay makes the same rows only under the same settings, so a change has to wait until nothing is to be replayed: until
the job has been stopped, not killed, and goes on from its recovery store.
"""

from collections.abc import Callable, Mapping

from dataflow.kafka.job_metadata import MetadataEntry, Note
from dataflow.kafka.offsets import PartitionId
from dataflow.kafka.sink import SinkState
from dataflow.streaming.errors import START_OVER, UserError

Value = float | str

STOP_AT_END = "stop_at_end"  # noted among the settings: whether the run closes every session at the end
MAPPING = "mapping"  # noted among the settings: how messages are read


def changes(before: Mapping[str, Value], now: Mapping[str, Value]) -> dict[str, tuple[Value, Value]]:
    """The settings, by name, that have another value than before; those that were not noted are left out.

    A run to the end of the inputs, at which all sessions close, may follow any run; after it, no other replays its rows.
    """
    changed = {name: (before[name], value) for name, value in now.items() if before.get(name, value) != value}
    if now.get(STOP_AT_END):
        changed.pop(STOP_AT_END, None)
    return changed


def noted_settings(entries: Mapping[PartitionId, MetadataEntry]) -> dict[str, Value]:
    """The settings under which the rows in the outputs were written; empty if nothing is noted."""
    noted: dict[str, Value] = {}
    for entry in entries.values():
        noted |= entry.note.settings
    return noted


def noted_firsts(entries: Mapping[PartitionId, MetadataEntry]) -> dict[str, int]:
    """Of each input, the sum of the offsets of its partitions' first rows when the job began; empty if not noted."""
    noted: dict[str, int] = {}
    for entry in entries.values():
        noted |= entry.note.firsts
    return noted


def refuse_other_inputs(
    entries: Mapping[PartitionId, MetadataEntry],
    topic_ids: Mapping[str, str],
    ends: Callable[[], Mapping[PartitionId, int]],
    from_latest: bool,
) -> None:
    """Raises UserError if an input was created again, and the outputs hold rows of the one before.

    Args:
        entries: of the output partitions; their offsets are where the job began.
        topic_ids: Kafka's ids of the inputs, by name, as far as they are known.
        ends: asks for the present ends of the output partitions.
        from_latest: whether the job began at the ends of its inputs, which say nothing in another topic.
    """
    noted: dict[str, str] = {}
    for entry in entries.values():
        noted |= entry.note.inputs
    for topic, id in topic_ids.items():
        if noted.get(topic, id) == id:
            continue
        found = ends()
        if from_latest or any(found[partition_id] > entry.offset for partition_id, entry in entries.items()):
            raise UserError(f"topic {topic} was created again since the job began with it; {START_OVER}")


def refuse_other_past(
    entries: Mapping[PartitionId, MetadataEntry],
    states: Mapping[PartitionId, SinkState],
    stored: Mapping[str, Value],
    now: Mapping[str, Value],
    ends: Callable[[], Mapping[PartitionId, int]],
) -> Mapping[PartitionId, int]:
    """Raises UserError if rows in the outputs were written under other settings and would be written again.

    Args:
        entries: of the output partitions.
        states: of the partitions in the last snapshot.
        stored: the settings under which that was taken; empty: there is none.
        now: the present settings.
        ends: asks for the present ends of the output partitions.

    Returns:
        These ends, if this start changes the settings; otherwise none.
    """
    before = {**stored, **noted_settings(entries)}
    if before:
        before = {MAPPING: "", **before}  # 0.1.0 had none
    changed = changes(before, now)
    if not changed:
        refuse_old_store(rows_before_change(entries, states))
        return {}
    found = ends()
    rows = rows_to_replay(entries, states, found)
    refuse_other_mapping(before, now, bool(stored), rows)
    refuse(changed, rows)
    return found


def refuse_other_mapping(before: Mapping[str, Value], now: Mapping[str, Value], has_snapshot: bool, rows: int) -> None:
    """Raises UserError if messages were read in another way when the job last ran.

    Args:
        before: the settings that were noted then.
        now: the present settings.
        has_snapshot: whether open sessions would be read again.
        rows: number of rows that a replay would make again.
    """
    if MAPPING in changes(before, now) and (has_snapshot or rows):
        raise UserError(
            "the mapping reads messages in another way than when the job last ran, so open sessions would be read again as "
            f"something else, and rows be written again in another form. Set VISITS_MAPPING as it was; or {START_OVER}"
        )


def rows_to_replay(
    entries: Mapping[PartitionId, MetadataEntry],
    states: Mapping[PartitionId, SinkState],
    ends: Mapping[PartitionId, int],
) -> int:
    """How many rows of the outputs a replay would make again.

    Args:
        entries: of the output partitions; their offsets are where the job began.
        states: of the partitions in the last snapshot.
        ends: the present ends of the partitions.
    """
    count = 0
    for partition_id, entry in entries.items():
        state = states.get(partition_id)
        count += ends[partition_id] - (entry.offset if state is None else state.end)
        if state is not None:
            count += sum(map(int.bit_count, state.pending.bits)) + len(state.pending.digests)
    return count


def rows_before_change(entries: Mapping[PartitionId, MetadataEntry], states: Mapping[PartitionId, SinkState]) -> int:
    """How many rows a replay would make again that were written before the settings were changed last.

    There are none but with a recovery store that is older than the change, such as a backup.

    Args:
        entries: of the output partitions.
        states: of the partitions in the last snapshot.
    """
    count = 0
    for partition_id, entry in entries.items():
        state = states.get(partition_id)
        count += max(0, entry.note.since - (entry.offset if state is None else state.end))
    return count


def refuse_old_store(rows: int) -> None:
    """Raises UserError if a replay would make rows again that were written before the last change of settings."""
    if rows:
        raise UserError(
            f"{rows:,} rows in the outputs were written before the settings were changed last, and would be written again in "
            f"another form: the recovery store is older than that. Put back the one of the last stop; or {START_OVER}"
        )


def refuse_lost_rows(noted: Mapping[str, int], firsts: Mapping[str, int], rows: int) -> None:
    """Raises UserError if a replay would begin without input rows of which there are rows in the outputs.

    Args:
        noted: of each input, the sum of the offsets of its first rows when the job began.
        firsts: the same now.
        rows: number of rows that the replay would make again.
    """
    lost = [topic for topic, first in firsts.items() if first > noted.get(topic, first)]
    if rows and lost:
        raise UserError(
            f"without its recovery store the job would read {lost[0]} again from its first row, but retention has removed rows "
            f"from there since the job began, so that other rows would be written beside the {rows:,} in the outputs. Put the "
            f"store back; or {START_OVER}"
        )


def refuse(changed: Mapping[str, tuple[Value, Value]], rows: int) -> None:
    """Raises UserError if settings have changed and there are rows to replay."""
    if changed and rows:
        was = ", ".join(f"{named(name)}={shown(before)}" for name, (before, _) in changed.items())
        now = ", ".join(shown(value) for _, value in changed.values())
        raise UserError(
            f"{rows:,} rows in the outputs were written with {was} and would be written again with {now}. Start the job "
            "as it was, with its recovery store (a new one if it had none), let it catch up and close its open sessions, "
            f"stop it (SIGTERM) and change that then; or {START_OVER}"
        )


def with_notes(
    entries: Mapping[PartitionId, MetadataEntry],
    settings: Mapping[str, Value],
    output_ids: Mapping[str, str],
    input_ids: Mapping[str, str],
    firsts: Mapping[str, int] = {},
    changed_at: Mapping[PartitionId, int] = {},
) -> dict[PartitionId, MetadataEntry]:
    """The entries, with what is noted of the rows that are written from now on.

    Args:
        entries: of the output partitions.
        settings: of the job.
        output_ids: ids of the topics, by name.
        input_ids: likewise.
        firsts: of each input, the sum of the offsets of its partitions' first rows; kept as it was noted first.
        changed_at: the ends of the partitions, if settings are changed by this start.
    """
    noted: dict[PartitionId, MetadataEntry] = {}
    for (topic, number), entry in entries.items():
        since = changed_at.get((topic, number), entry.note.since)
        note = Note(output_ids.get(topic, entry.note.topic_id), since=since)
        if number == 0:
            noted_firsts = {**firsts, **entry.note.firsts}
            note = Note(
                note.topic_id, dict(settings), {**entry.note.inputs, **input_ids}, firsts=noted_firsts, since=since
            )
        noted[topic, number] = entry._replace(note=note)
    return noted


def named(setting: str) -> str:
    """What users call a setting: a variable, or an entry of the mapping such as `events.purchases`."""
    return f"[{setting.replace('.', '] ')}" if "." in setting else f"VISITS_{setting.upper()}"


def shown(value: Value) -> str:
    """A setting's value as a user would write it."""
    return value if isinstance(value, str) else f"{value:g}"
