"""Clients that are replaced when they are stuck.

After an outage a client of librdkafka may fail or be silent for ever, while others reach the brokers. Whatever the job
asks it for would wait for ever too. So a client that has answered nothing for some time gives way to a new one. In an
outage that changes nothing, and so it happens ever more rarely.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, cast

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

Client = TypeVar("Client")
Answers = dict[Any, Future[Any]]

_STUCK_AFTER_S = 10.0  # of the first replacement; each further one waits twice as long
_MAX_STUCK_AFTER_S = 320.0
_DROP_AFTER_S = 60.0


class Replaceable(Generic[Client]):
    """A client, and how long it has not answered. Threads may share it.

    Args:
        open: makes a client.
        clock: monotonic, in seconds.
    """

    def __init__(self, open: Callable[[], Client], clock: Callable[[], float] = time.monotonic) -> None:
        self._open = open
        self._clock = clock
        self._lock = threading.Lock()  # guards what follows
        self._client = open()
        self._silent_since: float | None = None
        self._patience_s = _STUCK_AFTER_S

    @property
    def client(self) -> Client:
        """The client to ask: the present one, or a new one if that has been silent for long."""
        with self._lock:
            now = self._clock()
            if self._silent_since is not None and now >= self._silent_since + self._patience_s:
                self._silent_since, self._patience_s = now, min(2 * self._patience_s, _MAX_STUCK_AFTER_S)
                replaced = [self._client]
                self._client = self._open()
                _drop_later(replaced)
            return self._client

    @contextmanager
    def asked(self) -> Iterator[Client]:
        """Asks the client, and records whether it has answered; an error that a broker reports is an answer."""
        try:
            yield self.client
        except KafkaException as failure:
            self.record(failure)
            raise
        self.record(None)

    def record(self, failure: BaseException | None) -> None:
        """Records what a question has led to: an answer (None), or an error. May be called by a thread of the client."""
        with self._lock:
            if (
                not isinstance(failure, KafkaException) or failure.args[0].code() >= 0
            ):  # a broker's, not the client's own
                self._silent_since, self._patience_s = None, _STUCK_AFTER_S
            elif self._silent_since is None:
                self._silent_since = self._clock()


def _drop_later(clients: list[Any]) -> None:
    """Ends clients that are in use by nobody else, in a thread of its own, since a stuck one may take long.

    Not at once: a client must not be ended by a thread of its own, which may be reporting an answer at this moment.
    """
    timer = threading.Timer(_DROP_AFTER_S, clients.clear)
    timer.daemon = True
    timer.start()


class Admin:
    """An admin client that is replaced when it is stuck; its methods are those of `confluent_kafka.admin.AdminClient`.

    Args:
        open: makes an admin client.
    """

    def __init__(self, open: Callable[[], AdminClient]) -> None:
        self._admin = Replaceable(open)

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Raises KafkaException if there is no answer in time, in seconds."""
        with self._admin.asked() as admin:
            return admin.list_topics(topic, timeout=timeout)

    def list_offsets(self, *questions: Any, **options: Any) -> Answers:
        """Raises KafkaException if nothing can be asked."""
        try:
            answers: Answers = self._admin.client.list_offsets(*questions, **options)
        except KafkaException as failure:
            self._admin.record(failure)
            raise
        for answer in answers.values():
            answer.add_done_callback(lambda answer: self._admin.record(answer.exception()))
        return answers

    def describe_topics(self, *questions: Any, **options: Any) -> Answers:
        """Raises KafkaException if nothing can be asked."""
        return cast(Answers, self._admin.client.describe_topics(*questions, **options))

    def describe_configs(self, *questions: Any, **options: Any) -> Answers:
        """Raises KafkaException if nothing can be asked."""
        return cast(Answers, self._admin.client.describe_configs(*questions, **options))

    def poll(self, timeout: float) -> int:
        """Serves callbacks for so many seconds at most."""
        return int(self._admin.client.poll(timeout))
