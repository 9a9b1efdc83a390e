"""Stalled reads: a consumer that delivers nothing although its partition holds more.

After an outage librdkafka may stop to fetch a partition, for ever and without an error (confluentinc/librdkafka issue
4492 is one of several reports). All sessions would wait for that partition, so its consumer is replaced.
"""

import logging

from dataflow.kafka.end_offset_poller import ConfirmedEnd
from dataflow.observability import logs
from dataflow.streaming.time import SECOND

log = logging.getLogger("visits")

_STALLED_AFTER = 10 * SECOND  # of the first replacement; each further one waits twice as long
_MAX_STALLED_AFTER = 320 * SECOND
_ANSWER_VALID = 3 * SECOND  # an end that was asked for longer ago does not tell that its leader is there


class StallDetector:
    """Decides when the consumer of one partition is to be replaced. Times are the job clock's, in microseconds.

    An open transaction looks the same for a while: it is in the partition, and is not delivered. Then a replacement
    changes nothing, and costs one connection each time.

    Args:
        source: name of the partition, for messages.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._since: int | None = None  # rows are there and are not delivered
        self._patience = _STALLED_AFTER
        self._told = False

    @property
    def _replaced(self) -> bool:
        return self._patience > _STALLED_AFTER

    def record_delivery(self) -> None:
        """Rows were delivered."""
        if self._replaced:
            log.info("%s is read again, with a new connection", self._source, extra=logs.event("reading-resumed"))
        self._since, self._patience, self._told = None, _STALLED_AFTER, False

    def is_stalled(self, now: int, offset: int, end: ConfirmedEnd | None) -> bool:
        """Whether to replace the consumer, after a poll that delivered nothing.

        Args:
            now: the time.
            offset: the next one to be read.
            end: of the partition, as last known.
        """
        if end is None or end.offset <= offset or now > end.asked + _ANSWER_VALID:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        if now < self._since + self._patience:
            return False
        if self._replaced and not self._told:
            self._told = True
            log.warning(
                "%s: nothing can be read at offset %d, though it ends at %d; is a transaction open? Trying again",
                self._source,
                offset,
                end.offset,
                extra=logs.event("reading-stalled"),
            )
        self._since, self._patience = None, min(2 * self._patience, _MAX_STALLED_AFTER)
        return True
