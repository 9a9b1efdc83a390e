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

from bytewax.dataflow import Dataflow

from dataflow.clickstream.dead_letters import KINDS
from dataflow.clickstream.outputs import OUTPUTS
from dataflow.clickstream.topology import Inputs, build
from dataflow.dashboard.probe import DashboardProbe
from dataflow.dashboard.server import Page
from dataflow.dashboard.views import DashboardFeed
from dataflow.kafka.client import Connection, connect, count_partitions
from dataflow.kafka.deduplication import OutputDeduplicator
from dataflow.kafka.delivery import KafkaDelivery
from dataflow.kafka.end_offset_poller import EndOffsetPoller
from dataflow.kafka.event_restorer import KafkaEventRestorer
from dataflow.kafka.job_metadata import JobMetadata, start_offsets
from dataflow.kafka.lease import Lease
from dataflow.kafka.partitioner import PARTITIONERS
from dataflow.kafka.sink import KafkaSink, SinkState
from dataflow.kafka.source import KafkaPartitionConsumer, KafkaSource, SourceContext
from dataflow.observability import health, logs, metrics, summary
from dataflow.observability.progress import Progress
from dataflow.runtime.cluster import ProcessInfo
from dataflow.runtime.errors import install_error_handler
from dataflow.runtime.recovery_store import drop_unfinished_epochs
from dataflow.runtime.settings import PREFIX, Settings, load, log_options
from dataflow.runtime.shutdown import Shutdown
from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.errors import UserError
from dataflow.streaming.state import JobFingerprint, StateCodec
from dataflow.streaming.time import SECOND

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
    try:
        process_info = process_info or ProcessInfo.from_environment()
        if shutdown is None:
            shutdown = Shutdown(has_store=process_info.store is not None)
            shutdown.install()
            atexit.register(summary.log_totals)
        settings = load()
        shutdown.drain_timeout_s = settings.drain_timeout
        return _build_job(settings, process_info)
    except UserError as error:
        logs.fail(error)


def _build_job(settings: Settings, process_info: ProcessInfo) -> Dataflow:
    rules, alignment = settings.rules, SourceAlignment()
    connection = Connection(settings.client)
    metrics.set_function(metrics.kafka_up, connection.is_up)
    admin = connect(connection)
    partitions = count_partitions(admin, connection, settings.inputs + settings.outputs)
    fingerprint = _fingerprint(settings)
    metadata = JobMetadata(connection, settings.group + "-output")  # not the inputs' group, which lag monitors look at
    is_first = process_info.process_id == 0
    output_starts = start_offsets(metadata, admin, {topic: partitions[topic] for topic in settings.outputs}, is_first)
    read = {topic: partitions[topic] for topic in settings.inputs}
    starts = start_offsets(metadata, admin, read, is_first) if settings.start == "latest" else {}
    written_to = Counter(topic for topic, _ in output_starts)
    for topic, count in written_to.items():
        if count < partitions[topic]:
            log.info(
                "%s has %d partitions; the job goes on with the %d that it began with", topic, partitions[topic], count
            )
    lease = Lease(metadata, output_starts, settings.group) if is_first else None
    deduplicator = OutputDeduplicator(admin, connection, metadata, output_starts, settings.group)
    delivery = KafkaDelivery(connection, deduplicator, lease)
    metrics.set_function(metrics.unacknowledged, delivery.unacknowledged)
    delivery.acquire()
    if lease is not None:
        metrics.set_function(metrics.lease_held, lease.is_held)
    if process_info.store is not None:
        drop_unfinished_epochs(process_info.store)
    end_offsets = EndOffsetPoller(admin, connection, read, settings.group, round(settings.outage_grace * SECOND))
    progress = Progress(end_offsets, alignment, rules.lateness, live=not settings.stop_at_end)
    metrics.watch(progress)
    for topic in settings.inputs:
        for kind in KINDS:
            metrics.dead_letters.labels(topic, kind)  # so that the series exists before the first such message
    if settings.health_port:
        health.serve(settings.health_port, connection.is_up, progress)
    probe = None
    if settings.page_port:
        probe = DashboardProbe(rules.shards, *settings.inputs)
        page = Page(
            settings.page_address,
            settings.page_port,
            DashboardFeed(process_info.process_id, process_info.processes, probe, progress, connection.is_up),
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
    )
    codec: StateCodec[SinkState] = StateCodec(SinkState, fingerprint)

    def sink(topic: str) -> KafkaSink:
        return KafkaSink(topic, written_to[topic], PARTITIONERS[settings.partitioner], delivery, codec)

    inputs = Inputs(
        events=lambda decode: KafkaSource(settings.topic_user_events, decode, context),
        purchases=lambda decode: KafkaSource(settings.topic_purchases, decode, context),
        event_restorer=lambda decode: KafkaEventRestorer(
            connection, settings.topic_user_events, decode, settings.group
        ),
        events_topic=settings.topic_user_events,
        purchases_topic=settings.topic_purchases,
    )
    sinks = {spec.name: sink(settings.topic(spec)) for spec in OUTPUTS}
    return build(inputs, sinks, rules, alignment, fingerprint, metrics.hooks(), probe)


def _fingerprint(settings: Settings) -> JobFingerprint:
    @functools.cache  # called for every step of every shard; logged once
    def on_change(name: str, before: float, now: float) -> None:
        log.info(
            "%s is now %g and was %g: the new value holds from the last snapshot on; what was written by then stays",
            PREFIX + name.upper(), now, before,
        )  # fmt: skip

    durations = "session_gap", "match_window", "allowed_lateness"
    numbers: dict[str, float] = {name: getattr(settings, name) for name in durations}
    numbers |= settings.thresholds
    return JobFingerprint(settings.shards, settings.inputs + settings.outputs, settings.group, numbers, on_change)
