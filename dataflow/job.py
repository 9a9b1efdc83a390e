"""The job: the pipeline between the Kafka topics that the settings name."""

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

from dataflow import health, logs, metrics, shutdown
from dataflow.cluster import Place
from dataflow.errors import UserError, speak_plainly
from dataflow.kafka.client import Connection, connect, count_partitions
from dataflow.kafka.lease import Lease
from dataflow.kafka.lookout import Lookout
from dataflow.kafka.notes import Notes, beginnings
from dataflow.kafka.reread import KafkaReread
from dataflow.kafka.sink import KafkaSink, SinkState, Writer
from dataflow.kafka.source import KafkaSource, Reading
from dataflow.kafka.written import Written
from dataflow.pace import Pace
from dataflow.page.onlooker import Onlooker
from dataflow.page.picture import Pictures
from dataflow.page.server import Page
from dataflow.partitioner import PARTITIONERS
from dataflow.pipeline import Inputs, Outputs, Rules, build
from dataflow.progress import Progress
from dataflow.rules.rows import SECOND
from dataflow.settings import PREFIX, Settings, load
from dataflow.snapshots import Origin, Snapshots
from dataflow.store import mend

log = logging.getLogger("visits")


def make_flow(place: Place | None = None) -> Dataflow:
    """Reads the settings, looks at the cluster and builds the dataflow; ends the process with one line if it cannot.

    Args:
        place: where this process stands in its cluster; if it is not said, what the engine was told.
    """
    # rows and sessions make no cycles, and to look for some among all that are open took a third of the time
    gc.set_threshold(200_000, 50, 1_000)
    logs.start()
    os.environ["RUST_BACKTRACE"] = "0"  # the engine's own frames say nothing of what went wrong
    speak_plainly()
    faulthandler.register(signal.SIGUSR1, sys.__stderr__)  # says where every thread is
    try:
        return _between_topics(load(), place or Place.as_told())
    except UserError as error:
        logs.fail(error)


def rules_of(settings: Settings) -> Rules:
    """The settings' seconds as the rules count them."""
    return Rules(
        gap=round(settings.session_gap * SECOND),
        window=round(settings.match_window * SECOND),
        lateness=round(settings.allowed_lateness * SECOND),
        max_events=settings.max_events,
        min_page_views=settings.min_page_views,
        shards=settings.shards,
    )


def _between_topics(settings: Settings, place: Place) -> Dataflow:
    rules, pace = rules_of(settings), Pace()
    connection = Connection(settings)
    admin = connect(connection)
    partitions = count_partitions(admin, connection, settings.inputs + settings.outputs)
    origin = _origin(settings)
    notes = Notes(connection, settings.group + "-output")  # not the inputs' group, which lag monitors look at
    is_first = place.process_id == 0
    begins = beginnings(notes, admin, {topic: partitions[topic] for topic in settings.outputs}, is_first)
    read = {topic: partitions[topic] for topic in settings.inputs}
    starts = beginnings(notes, admin, read, is_first) if settings.start == "latest" else {}
    written_to = Counter(topic for topic, _ in begins)
    for topic, count in written_to.items():
        if count < partitions[topic]:
            log.info(
                "%s has %d partitions; the job goes on with the %d that it began with", topic, partitions[topic], count
            )
    lease = Lease(notes, begins, settings.group) if is_first else None
    if lease is not None:
        lease.take()
        shutdown.last_acts.append(lease.release)
        atexit.register(lease.release)
    if place.store is not None:
        mend(place.store)
    lookout = Lookout(admin, connection, read, settings.group, round(settings.outage_grace * SECOND))
    progress = Progress(lookout, pace, rules.lateness, live=not settings.stop_at_end)
    metrics.watch(progress)
    if settings.health_port:
        health.serve(settings.health_port, connection.is_up, progress)
    onlooker = None
    if settings.page_port:
        onlooker = Onlooker(rules.shards, *settings.inputs)
        page = Page(settings.page_address, settings.page_port, Pictures(place, onlooker, progress, connection.is_up))
        log.info("the page is on %s", page.url, extra=logs.event("page"))
    reading = Reading(
        connection=connection,
        lookout=lookout,
        pace=pace,
        progress=progress,
        group=settings.group,
        lateness=rules.lateness,
        origin=origin,
        starts=starts,
        stop_at_end=settings.stop_at_end,
    )
    written = Written(admin, connection, notes, begins, settings.group)
    writer = functools.cache(lambda: Writer(connection, written, lease))  # made by the first part that writes
    snapshots = Snapshots(SinkState, origin)

    def sink(topic: str) -> KafkaSink:
        return KafkaSink(topic, written_to[topic], PARTITIONERS[settings.partitioner], writer, snapshots)

    inputs = Inputs(
        events=lambda decode: KafkaSource(settings.topic_user_events, decode, reading),
        purchases=lambda decode: KafkaSource(settings.topic_purchases, decode, reading),
        reread=lambda decode: KafkaReread(connection, settings.topic_user_events, decode, settings.group),
        events_topic=settings.topic_user_events,
        purchases_topic=settings.topic_purchases,
    )
    return build(inputs, Outputs(*map(sink, settings.outputs)), rules, pace, origin, onlooker)


def _origin(settings: Settings) -> Origin:
    @functools.cache  # every step of every shard is resumed, and once is enough
    def on_change(name: str, before: float, now: float) -> None:
        log.info(
            "%s is now %g and was %g: the new value holds from the last snapshot on; what was written by then stays",
            PREFIX + name.upper(), now, before,
        )  # fmt: skip

    told = "session_gap", "match_window", "allowed_lateness", "max_events", "min_page_views"
    numbers = {name: getattr(settings, name) for name in told}
    return Origin(settings.shards, settings.inputs + settings.outputs, settings.group, numbers, on_change)
