"""HTTP health probes: ``/live`` says whether to restart the process, ``/ready`` whether its output is up to date.

The engine's own server cannot be extended, so this is a second server, on its own port. Every response is one line that
states its reason.
"""

from collections.abc import Callable, Collection
from http import HTTPStatus

from dataflow.observability import http, lifecycle, liveness
from dataflow.observability.progress import Progress

STUCK_AFTER_S = 30  # in one callback
STALLED_AFTER_S = 600  # without a poll; the other processes may wait this long for a partition without a leader
BEHIND_AFTER_S = 10  # partitions at their end report it about twice a second

Verdict = tuple[bool, str]  # whether the probe succeeds, and why


def live(kafka_is_up: Callable[[], bool]) -> Verdict:
    """Whether the workers make progress. Waiting for Kafka counts as alive, because a restart would not help."""
    longest_call, since_poll = liveness.longest_call(), liveness.since_poll()
    if longest_call > STUCK_AFTER_S:
        return False, f"a worker has been busy with one batch, or one snapshot, for {longest_call:.0f} s"
    if since_poll is None:
        return True, "starting or stopping"
    if not kafka_is_up():
        return True, "waiting for Kafka"
    return since_poll <= STALLED_AFTER_S, f"sources were last polled {since_poll:.1f} s ago"


def ready(
    kafka_is_up: Callable[[], bool], progress: Progress, doubts: Callable[[], Collection[str]] = tuple
) -> Verdict:
    """Whether every partition of this process was read to its end in the last BEHIND_AFTER_S seconds.

    The reason also tells why an input can hardly be meant as it is.
    """
    if lifecycle.is_ending():
        return False, "stopping"
    is_live, why = live(kafka_is_up)
    if not is_live:
        return False, why
    behind = progress.behind_its_end(BEHIND_AFTER_S)
    why = behind or f"every partition was read to its end in the last {BEHIND_AFTER_S} s"
    return behind is None, "; but ".join([why, *doubts()])


def serve(
    port: int, kafka_is_up: Callable[[], bool], progress: Progress, doubts: Callable[[], Collection[str]] = tuple
) -> None:
    """Starts the server in a thread.

    Args:
        port: TCP port, on all addresses.
        kafka_is_up: whether a broker can be reached.
        progress: how far the partitions of this process have been read.
        doubts: why inputs can hardly be meant as they are.

    Raises:
        UserError: the port is not available.
    """
    probes = {"/live": lambda: live(kafka_is_up), "/ready": lambda: ready(kafka_is_up, progress, doubts)}

    class Probe(http.QuietHandler):
        def do_GET(self) -> None:
            probe = probes.get(self.path)
            if probe is None:
                self.respond(HTTPStatus.NOT_FOUND, f"ask {' or '.join(probes)}")
                return
            succeeds, why = probe()
            self.respond(HTTPStatus.OK if succeeds else HTTPStatus.SERVICE_UNAVAILABLE, why)

        def respond(self, status: HTTPStatus, line: str) -> None:
            body = line.encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    http.serve("VISITS_HEALTH_PORT", "", port, Probe)
