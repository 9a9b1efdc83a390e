"""The job: the pipeline between the Kafka topics that the settings name."""

import functools
import logging
import os
import sys

from bytewax.dataflow import Dataflow

from dataflow.errors import UserError, speak_plainly
from dataflow.kafka.client import Connection, connect, count_partitions
from dataflow.kafka.lookout import Lookout
from dataflow.kafka.sink import KafkaSink, SinkState, Writer
from dataflow.kafka.source import KafkaSource, Reading, start_offset
from dataflow.kafka.written import Written
from dataflow.pace import Pace
from dataflow.partitioner import PARTITIONERS
from dataflow.pipeline import Inputs, Outputs, Rules, build
from dataflow.rules.rows import SECOND
from dataflow.settings import Settings, load
from dataflow.snapshots import Snapshots


def make_flow() -> Dataflow:
    """Reads the settings, looks at the cluster and builds the dataflow; ends the process with one line if it cannot."""
    logging.basicConfig(format="visits: %(message)s", level=logging.INFO)
    os.environ["RUST_BACKTRACE"] = "0"  # the engine's own frames say nothing of what went wrong
    speak_plainly()
    try:
        return _between_topics(load())
    except UserError as error:
        sys.exit(f"visits: {error}")


def rules_of(settings: Settings) -> Rules:
    """The settings' seconds as the rules count them."""
    return Rules(
        gap=round(settings.session_gap * SECOND),
        window=round(settings.match_window * SECOND),
        lateness=round(settings.allowed_lateness * SECOND),
        max_events=settings.max_events,
        shards=settings.shards,
    )


def _between_topics(settings: Settings) -> Dataflow:
    rules, pace = rules_of(settings), Pace()
    connection = Connection(settings)
    admin = connect(connection)
    partitions = count_partitions(admin, connection, settings.inputs + settings.outputs)
    reading = Reading(
        connection=connection,
        lookout=Lookout(admin, connection, {topic: partitions[topic] for topic in settings.inputs}, settings.group),
        pace=pace,
        group=settings.group,
        lateness=rules.lateness,
        shards=rules.shards,
        start=start_offset(settings.start),
        stop_at_end=settings.stop_at_end,
    )
    written = Written(admin, connection, settings.group + "-output")  # not among the inputs, where lag monitors look
    writer = functools.cache(lambda: Writer(connection, written))  # made by the first part that writes
    snapshots = Snapshots(SinkState, settings.shards)

    def sink(topic: str) -> KafkaSink:
        return KafkaSink(topic, partitions[topic], PARTITIONERS[settings.partitioner], writer, snapshots)

    inputs = Inputs(
        events=lambda decode: KafkaSource(settings.topic_user_events, decode, reading),
        purchases=lambda decode: KafkaSource(settings.topic_purchases, decode, reading),
    )
    return build(inputs, Outputs(*map(sink, settings.outputs)), rules, pace)
