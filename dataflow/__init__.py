"""A shop's click stream into sessions, live: from Kafka, through a Bytewax dataflow, to Kafka."""

from bytewax.dataflow import Dataflow

__all__ = ["flow"]


def flow() -> Dataflow:
    """The job as its settings describe it, for ``python -m bytewax.run dataflow:flow``.

    Exits with one line if a setting is wrong, or Kafka does not answer or lacks a topic.
    """
    from dataflow.runtime.job import make_flow

    return make_flow()
