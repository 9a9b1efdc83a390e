"""Answers probes: ``/live`` whether to start the process again, ``/ready`` whether its output is up to the moment.

The engine's own server cannot be extended, so this is one more, on a port of its own, with one line an answer. Neither
says 200 without a reason, nor anything else without saying why.
"""

from collections.abc import Callable
from http import HTTPStatus

from dataflow.observability import http, lifecycle, liveness
from dataflow.observability.progress import Progress

STUCK = 30  # seconds in one call
STALLED = 600  # seconds without a poll; others of the cluster may wait so long for a partition without a leader
BEHIND = 10  # seconds; partitions at their end say so about twice a second

Verdict = tuple[bool, str]


def live(kafka_is_up: Callable[[], bool]) -> Verdict:
    """Whether the workers make progress. Waiting for Kafka is no reason to be started again."""
    stuck, quiet = liveness.longest_call(), liveness.since_poll()
    if stuck > STUCK:
        return False, f"a worker has been busy with one batch, or one snapshot, for {stuck:.0f} s"
    if quiet is None:
        return True, "starting, or ending"
    if not kafka_is_up():
        return True, "waiting for Kafka"
    return quiet <= STALLED, f"sources were last polled {quiet:.1f} s ago"


def ready(kafka_is_up: Callable[[], bool], progress: Progress) -> Verdict:
    """Whether every partition of this process has just been read to its end."""
    if lifecycle.stop_requested.is_set():
        return False, "stopping"
    alive, why = live(kafka_is_up)
    if not alive:
        return False, why
    behind = progress.behind_its_end(BEHIND)
    return behind is None, behind or f"every partition was read to its end in the last {BEHIND} s"


def serve(port: int, kafka_is_up: Callable[[], bool], progress: Progress) -> None:
    """Answers from now on, in a thread. Raises UserError if the port cannot be had."""
    probes = {"/live": lambda: live(kafka_is_up), "/ready": lambda: ready(kafka_is_up, progress)}

    class Probe(http.QuietHandler):
        def do_GET(self) -> None:
            ask = probes.get(self.path)
            if ask is None:
                self.answer(HTTPStatus.NOT_FOUND, f"ask {' or '.join(probes)}")
                return
            well, why = ask()
            self.answer(HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE, why)

        def answer(self, status: HTTPStatus, line: str) -> None:
            body = line.encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.serve("VISITS_HEALTH_PORT", "", port, Probe)
