"""A Kafka cluster inside this process, for the demo and the tests: librdkafka's own mock.

It speaks the real protocol over TCP, so any client of any process on this machine can use it. It keeps
5 MiB or 100,000 messages a partition, whichever is less, and forgets everything when it closes.
"""

import ctypes
from types import TracebackType

import confluent_kafka.cimpl

_PRODUCER = 0  # rd_kafka_type_t


def _library() -> ctypes.CDLL:
    lib = ctypes.CDLL(confluent_kafka.cimpl.__file__)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, result, arguments in (
        ("rd_kafka_conf_new", pointer, []),
        ("rd_kafka_conf_set", number, [pointer, text, text, text, ctypes.c_size_t]),
        ("rd_kafka_new", pointer, [number, pointer, text, ctypes.c_size_t]),
        ("rd_kafka_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_new", pointer, [pointer, number]),
        ("rd_kafka_mock_cluster_destroy", None, [pointer]),
        ("rd_kafka_mock_cluster_bootstraps", text, [pointer]),
        ("rd_kafka_mock_topic_create", number, [pointer, text, number, number]),
        ("rd_kafka_mock_partition_set_leader", number, [pointer, text, ctypes.c_int32, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_down", number, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_up", number, [pointer, ctypes.c_int32]),
        ("rd_kafka_mock_broker_set_rtt", number, [pointer, ctypes.c_int32, ctypes.c_int]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib


class EmbeddedKafka:
    """A mock cluster, up from construction until `close`; `brokers` is its bootstrap address.

    Broker ids count from 1. Raises RuntimeError if librdkafka refuses an operation.
    """

    def __init__(self, brokers: int = 3) -> None:
        self._lib = _library()
        # the mock lives in a client handle that is used for nothing else
        conf = self._lib.rd_kafka_conf_new()
        self._lib.rd_kafka_conf_set(conf, b"log_level", b"2", None, 0)  # it would warn of having no broker
        self._client = self._lib.rd_kafka_new(_PRODUCER, conf, None, 0)
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, brokers)
        if not self._cluster:
            raise RuntimeError("librdkafka could not start its mock cluster")
        self.brokers: str = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._ids = range(1, brokers + 1)

    def create_topic(self, name: str, partitions: int = 8) -> None:
        self._check(self._lib.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, len(self._ids)))

    def set_leader(self, topic: str, partition: int, broker: int) -> None:
        self._check(self._lib.rd_kafka_mock_partition_set_leader(self._cluster, topic.encode(), partition, broker))

    def stop_brokers(self, *ids: int) -> None:
        """Makes brokers unreachable (all of them if none is named); what they hold stays."""
        for broker in ids or self._ids:
            self._check(self._lib.rd_kafka_mock_broker_set_down(self._cluster, broker))

    def start_brokers(self, *ids: int) -> None:
        for broker in ids or self._ids:
            self._check(self._lib.rd_kafka_mock_broker_set_up(self._cluster, broker))

    def set_round_trip(self, milliseconds: int) -> None:
        """How long each answer of a broker takes at least, as if it were far away."""
        for broker in self._ids:
            self._check(self._lib.rd_kafka_mock_broker_set_rtt(self._cluster, broker, milliseconds))

    def close(self) -> None:
        if self._cluster:
            self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
            self._lib.rd_kafka_destroy(self._client)
            self._cluster = None

    def __enter__(self) -> "EmbeddedKafka":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @staticmethod
    def _check(code: int) -> None:
        if code:
            raise RuntimeError(f"librdkafka's mock cluster answered with error {code}")
