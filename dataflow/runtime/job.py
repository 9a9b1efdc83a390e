"""The job: the topology between the Kafka topics that the settings name."""

import atexit
import faulthandler
import functools
import gc
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from bytewax.dataflow import Dataflow
from confluent_kafka import KafkaException

from dataflow.clickstream.dead_letters import KINDS
from dataflow.clickstream.input_check import PROBLEMS, InputCheck
from dataflow.clickstream.outputs import OUTPUTS
from dataflow.clickstream.topology import Inputs, build
from dataflow.dashboard.probe import DashboardProbe
from dataflow.dashboard.server import Page
from dataflow.dashboard.views import DashboardFeed
from dataflow.kafka.client import Connection, MissingTopics, connect, count_partitions
from dataflow.kafka.deduplication import OutputDeduplicator
from dataflow.kafka.delivery import KafkaDelivery
from dataflow.kafka.end_offset_poller import EndOffsetPoller
from dataflow.kafka.event_restorer import KafkaEventRestorer
from dataflow.kafka.job_metadata import JobMetadata, read_entries
from dataflow.kafka.lease import Lease, LeaseFollower
from dataflow.kafka.offsets import PartitionId, earliest_offsets, end_offsets, retry_until_answered
from dataflow.kafka.partitioner import PARTITIONERS
from dataflow.kafka.replaceable import Admin
from dataflow.kafka.sink import SINK_CONVERTERS, KafkaSink, SinkState
from dataflow.kafka.source import KafkaPartitionConsumer, KafkaSource, SourceContext
from dataflow.kafka.topic_ids import TopicWatch, topic_gone, topic_ids
from dataflow.observability import health, logs, metrics
from dataflow.observability.clock import clock
from dataflow.observability.progress import Progress
from dataflow.runtime import changed_settings
from dataflow.runtime.cluster import ProcessInfo
from dataflow.runtime.errors import install_error_handler
from dataflow.runtime.recovery_store import StoreWatch, check_store, drop_unfinished_epochs, store_id
from dataflow.runtime.settings import Settings, load, log_options
from dataflow.runtime.shutdown import Shutdown
from dataflow.runtime.stored_states import StoredStates
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.errors import UserError
from dataflow.streaming.partition_reader import MAX_FUTURE
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import MIN_TIME, SECOND

log = logging.getLogger("visits")


def make_flow(process_info: ProcessInfo | None = None, shutdown: Shutdown | None = None) -> Dataflow:
    """Reads the settings, checks the topics and builds the dataflow; ends the process with one line if it cannot.

    Args:
        process_info: this process in its cluster; by default what the engine's command line or variables say.
        shutdown: what handles signals; by default one that is made here.
    """
    # rows and sessions form no cycles; searching the open ones for cycles took a third of the time
    gc.set_threshold(200_000, 50, 1_000)
    logs.start(*log_options())
    os.environ["RUST_BACKTRACE"] = "0"  # a backtrace of the engine's own frames helps nobody
    install_error_handler()
    faulthandler.register(signal.SIGUSR1, sys.__stderr__ or 2)  # prints where every thread is
    is_engines_command = shutdown is None  # which neither creates a store nor knows our totals and exit codes
    try:
        process_info = process_info or ProcessInfo.from_environment()
        if shutdown is None:
            shutdown = Shutdown(has_store=process_info.store is not None)
            shutdown.install()
        process_info.check()
        if process_info.store is not None:
            check_store(process_info.store, will_be_created=not is_engines_command)
        settings = load()
        shutdown.drain_timeout_s = settings.drain_timeout
        flow = _build_job(settings, process_info)
    except UserError as error:
        logs.fail(error)
    process_info.say_if_waiting()
    if is_engines_command:
        if process_info.store is not None:
            shutdown.watch(StoreWatch(process_info.store))
        atexit.register(shutdown.finish_and_exit)
    return flow


def _build_job(settings: Settings, process_info: ProcessInfo) -> Dataflow:
    rules, alignment = settings.rules, SourceAlignment()
    workers = process_info.workers * process_info.processes
    if workers > settings.shards:
        log.warning(
            "%d workers for %d shards (VISITS_SHARDS): %d of them have nothing to do but read and write",
            workers,
            settings.shards,
            workers - settings.shards,
            extra=logs.event("idle-workers"),
        )
    connection = Connection(settings.client)
    metrics.set_function(metrics.kafka_up, connection.is_up)
    admin = connect(connection)
    metadata = JobMetadata(connection, settings.group + "-output")  # not the inputs' group, which lag monitors look at
    optional = settings.optional_outputs
    try:
        partitions = count_partitions(admin, connection, settings.inputs + settings.outputs, optional)
    except MissingTopics as missing:
        _refuse_topics_that_are_gone(missing.topics, settings, process_info, metadata, admin, connection)
        raise
    ids = topic_ids(admin, partitions)
    is_first = process_info.process_id == 0
    outputs = {topic: partitions[topic] for topic in settings.outputs if topic in partitions}
    begun: dict[str, int] = {}  # topics that are new to the job, and how many rows were written to them before
    entries = read_entries(metadata, admin, outputs, ids, is_first, begun.__setitem__, optional)
    read = {topic: partitions[topic] for topic in settings.inputs}
    starts: dict[PartitionId, int] = {}
    if settings.start == "latest":
        read_starts = read_entries(metadata, admin, read, ids, is_first)
        starts = {partition_id: entry.offset for partition_id, entry in read_starts.items()}
    written_to = Counter(topic for topic, _ in entries)
    left_out = [topic for topic in optional if topic not in written_to]
    topics = [topic for topic in settings.inputs + settings.outputs if topic not in left_out]
    fingerprint = _fingerprint(settings, topics, ids)
    stored = StoredStates(process_info.store, settings, fingerprint)
    if left_out:
        _refuse_optional_topics_that_are_gone(left_out, stored)
        if is_first:
            _say_what_is_not_written(left_out)
    for topic, count in written_to.items():
        if count < partitions[topic]:
            log.info(
                "%s has %d partitions; the job goes on with the %d that it began with", topic, partitions[topic], count
            )
    output_starts = {partition_id: entry.offset for partition_id, entry in entries.items()}
    deduplicator = OutputDeduplicator(admin, connection, metadata, output_starts, settings.group)
    codec: StateCodec[SinkState] = StateCodec(SinkState, fingerprint, SINK_CONVERTERS)
    lease: Lease | LeaseFollower
    shared = _shared(settings, fingerprint, process_info.store)
    if is_first:
        processes = process_info.processes
        lease = Lease(metadata, entries, settings.group, clock, processes=processes, shared=shared, optional=optional)
    else:
        lease = LeaseFollower(metadata, entries, settings.group, clock, shared, optional)
    delivery = KafkaDelivery(connection, deduplicator, lease)
    metrics.set_function(metrics.unacknowledged, delivery.unacknowledged)
    delivery.acquire()
    metrics.set_function(metrics.lease_held, lease.is_held)
    if process_info.store is not None:
        drop_unfinished_epochs(process_info.store)
    if isinstance(lease, Lease):
        input_ids = {topic: id for topic, id in ids.items() if topic in settings.inputs}
        changed_settings.refuse_other_inputs(entries, input_ids, deduplicator.stable_ends, settings.start == "latest")
        states = stored.sinks()
        now = {
            **fingerprint.settings,
            "start": settings.start,
            changed_settings.STOP_AT_END: int(settings.stop_at_end),
        }
        changed_at = changed_settings.refuse_other_past(
            entries, states, stored.settings(), now, deduplicator.stable_ends
        )
        noted_firsts = changed_settings.noted_firsts(entries)
        firsts: dict[str, int] = {}
        if not states or noted_firsts.keys() != read.keys():
            firsts = _first_offsets(admin, read, metadata)
        if not states:
            _warn_of_rows_of_others(
                begun
            )  # with a snapshot they are the job's own, and Kafka has forgotten its metadata
            if noted_firsts and settings.start == "earliest":
                rows = changed_settings.rows_to_replay(entries, states, deduplicator.stable_ends())
                changed_settings.refuse_lost_rows(noted_firsts, firsts, rows)
        lease.note(changed_settings.with_notes(entries, now, ids, input_ids, firsts, changed_at))
    outage_grace = round(settings.outage_grace * SECOND)
    topic_watch = TopicWatch(admin, ids, settings.outputs)
    end_offsets = EndOffsetPoller(admin, connection, read, settings.group, outage_grace, topic_watch.check)
    progress = Progress(end_offsets, alignment, rules.lateness, live=not settings.stop_at_end)
    metrics.watch(progress)
    for topic in settings.inputs:
        for kind in KINDS:
            metrics.dead_letters.labels(topic, kind)  # so that the series exists before the first such message
    check = InputCheck(rules.kinds, lambda text: log.warning("%s", text, extra=logs.event("doubtful-input")))
    for problem in PROBLEMS:
        metrics.set_function(metrics.doubtful_input.labels(problem), functools.partial(check.has, problem))

    def doubts() -> list[str]:
        return list(check.problems().values())

    if settings.health_port:
        health.serve(settings.health_port, connection.is_up, progress, doubts)
    probe = None
    if settings.page_port:
        probe = DashboardProbe(rules.shards, settings.input_topics, rules.kinds)
        page = Page(
            settings.page_address,
            settings.page_port,
            DashboardFeed(process_info.process_id, process_info.processes, probe, progress, connection.is_up, doubts),
        )
        log.info("the page is on %s", page.url, extra=logs.event("page"))
    context = SourceContext(
        open_consumer=functools.partial(KafkaPartitionConsumer, connection, admin, settings.group),
        end_offsets=end_offsets,
        alignment=alignment,
        progress=progress,
        lateness=rules.lateness,
        fingerprint=fingerprint,
        starts=starts,
        stop_at_end=settings.stop_at_end,
        on_start=lease.join,
        on_batch=check.look,
    )
    started = clock.now()

    def replay_is_over() -> bool:
        """No run before this one can have written rows of later sessions than its clock, and a margin, allowed."""
        watermark = alignment.slowest() - rules.lateness if alignment.source_watermarks() else MIN_TIME
        return watermark > started + MAX_FUTURE

    def sink(topic: str) -> KafkaSink:
        partitioner = PARTITIONERS[settings.partitioner]
        return KafkaSink(topic, written_to[topic], partitioner, delivery, codec, replay_is_over)

    input_topics = settings.input_topics
    inputs = Inputs(
        source=lambda topic: KafkaSource(topic.name, topic.decoder, context),
        event_restorer=KafkaEventRestorer(connection, input_topics.decoders_of_events(), settings.group),
        topics=input_topics,
    )
    sinks = {spec.name: sink(settings.topic(spec)) for spec in OUTPUTS if settings.topic(spec) in written_to}
    return build(inputs, sinks, rules, alignment, fingerprint, metrics.hooks(), probe)


def _warn_of_rows_of_others(begun: Mapping[str, int]) -> None:
    for topic, rows in begun.items():
        if rows:
            log.warning(
                "%s: %s rows were written to it before this job's first start, and this job's rows will stand beside them. "
                "If they are those of another VISITS_GROUP for the same inputs, set that group, or other output topics",
                topic,
                f"{rows:,}",
                extra=logs.event("rows-of-others"),
            )


def _say_what_is_not_written(topics: Sequence[str]) -> None:
    names = ", ".join(topics)
    log.info(
        "Kafka has no topic %s, so %s is not written; `python -m producer --create-topics` creates it, and after the next start "
        "it gets the sessions that close from then on",
        names,
        names,
        extra=logs.event("output-missing"),
    )


def _refuse_optional_topics_that_are_gone(topics: Sequence[str], stored: StoredStates) -> None:
    """Raises UserError if the job has written one of these topics, which are not there."""
    for topic in stored.topics().intersection(topics):
        raise topic_gone(topic, is_output=True)


def _refuse_topics_that_are_gone(
    missing: Sequence[str],
    settings: Settings,
    process_info: ProcessInfo,
    metadata: JobMetadata,
    admin: Admin,
    connection: Connection,
) -> None:
    """Raises UserError if the job has used one of the missing topics, so that creating it anew would be no help."""
    # without ids, which a missing topic does not have; a store of other topics is reported as such
    fingerprint = _fingerprint(settings, settings.inputs + settings.outputs, {})
    if StoredStates(process_info.store, settings, fingerprint).sinks():
        raise topic_gone(missing[0], missing[0] in settings.outputs)
    outputs = [topic for topic in settings.outputs if topic not in missing]
    partitions = count_partitions(admin, connection, outputs, settings.optional_outputs)
    try:
        entries = metadata.read((topic, number) for topic, count in partitions.items() for number in range(count))
        ends = end_offsets(admin, entries)
    except KafkaException:
        return
    noted = {topic for entry in entries.values() for topic in entry.note.inputs}
    has_written = any(ends[partition_id].offset > entry.offset for partition_id, entry in entries.items())
    for topic in noted.intersection(missing):
        if has_written or settings.start == "latest":
            raise topic_gone(topic, is_output=False)


def _first_offsets(admin: Admin, partitions: Mapping[str, int], metadata: JobMetadata) -> dict[str, int]:
    """Of each topic, the sum of the offsets of its partitions' first rows: it rises as retention removes rows."""
    partition_ids = [(topic, number) for topic, count in partitions.items() for number in range(count)]
    offsets = retry_until_answered(lambda: earliest_offsets(admin, partition_ids), metadata.poll)
    sums = dict.fromkeys(partitions, 0)
    for (topic, _), offset in offsets.items():
        sums[topic] += offset
    return sums


def _shared(settings: Settings, fingerprint: JobFingerprint, store: Path | None) -> dict[str, float | str]:
    """What all processes of a cluster must have in common, by the name that users know."""
    shared: dict[str, float | str] = {"the recovery store (-r)": store_id(store) if store is not None else "none"}
    shared["the names of the topics"] = blake2b(" ".join(fingerprint.topics).encode(), digest_size=8).hexdigest()
    shared |= {changed_settings.named(name): value for name, value in fingerprint.settings.items()}
    return shared | {
        "VISITS_SHARDS": settings.shards,
        "VISITS_START": settings.start,
        "VISITS_STOP_AT_END": int(settings.stop_at_end),
    }


def _fingerprint(settings: Settings, topics: Sequence[str], topic_ids: Mapping[str, str]) -> JobFingerprint:
    @functools.cache  # called for every step of every shard; logged once
    def on_change(name: str, before: float | str, now: float | str) -> None:
        log.info(
            "%s is now %s and was %s: the new value holds from the last snapshot on; what was written by then stays",
            changed_settings.named(name), changed_settings.shown(now), changed_settings.shown(before),
        )  # fmt: skip

    names = "session_gap", "match_window", "allowed_lateness", "partitioner"
    noted: dict[str, float | str] = {name: getattr(settings, name) for name in names}
    noted |= settings.thresholds
    mapping = settings.mapping_file
    noted[changed_settings.MAPPING] = mapping.reading if mapping is not None else ""
    noted |= mapping.kinds if mapping is not None else {}
    optional = settings.optional_outputs
    return JobFingerprint(settings.shards, tuple(topics), settings.group, noted, on_change, topic_ids, optional)
