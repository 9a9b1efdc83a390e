"""``python -m producer``: sends what a simulated shop or a recorded file has to say."""

import math
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import FrameType

from dataflow.runtime import settings
from dataflow.runtime.settings import Settings
from dataflow.streaming.errors import UserError
from producer import options as command_line
from producer.kafka import Sender
from producer.mapped_recording import MappedRecording
from producer.pace import Pace, delayed, shifted
from producer.progress import SendingProgress
from producer.recording import Recording
from producer.rows import Row
from producer.shop import simulate
from producer.sorting import sorted_by_time
from producer.topics import PARTITIONS

_ROUSED_EVERY = 0.1  # seconds: how soon a signal is seen
_SLACK = 60.0  # seconds by which a shop of so many events begins earlier, so that it surely has closed by now


@dataclass(frozen=True)
class _Work:
    """What is to be sent, and when."""

    rows: Iterator[Row]
    pace: Pace
    share: Callable[[Sender], float | None] = lambda sender: None  # of all that is sent; None if there is no end
    bad_lines: int = 0


class _Stop:
    """Turns SIGINT and SIGTERM into a KeyboardInterrupt, or, once sending has begun, into an answer to be asked for.

    Asked, because an exception between queueing a row and counting it would make the summary wrong. A second
    signal ends the program on the spot.
    """

    def __init__(self) -> None:
        self.polite = self.wanted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if not self.polite:
            raise KeyboardInterrupt
        self.wanted = True


def main() -> int:
    options = command_line.parse()
    stop = _Stop()
    try:
        return _run(options, settings.load(), stop)
    except UserError as error:
        print(f"producer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped before anything was sent")
        return 0


def _run(options: Namespace, config: Settings, stop: _Stop) -> int:
    with SendingProgress() as display:
        recording = _recording(options, config)
        sender = Sender(config, keyed=not options.unkeyed, tell=display.print, stopping=lambda: stop.wanted)
        created = sender.create_topics(config.inputs + config.outputs)
        if created:
            display.print(f"created topics of {PARTITIONS} partitions: {', '.join(created)}")
        if options.create_topics:
            print("all topics are there")
            return 0
        work = _recorded(options, recording, display) if recording else _simulated(options, config)
        stop.polite = True
        _send(work, options, sender, stop, display)
    elapsed = time.time() - work.pace.began
    parts = [f"sent {sender.user_events:,} user-events and {sender.purchases:,} purchases in {elapsed:.1f} s"]
    if sender.failed:
        parts.append(f"{sender.failed:,} rows were not delivered: {sender.failure}")
    if work.bad_lines:
        parts.append(f"{work.bad_lines:,} lines of {options.file} were left out")
    print("; ".join(parts))
    return 1 if sender.failed or work.bad_lines else 0


def _recording(options: Namespace, config: Settings) -> Recording | MappedRecording | None:
    if config.mapping_file is None:
        return Recording(options.file, options.map, options.set) if options.file else None
    if options.create_topics:
        return None
    if options.file is None:
        raise UserError("the simulated shop knows the default shape only: unset VISITS_MAPPING, or send a FILE")
    if options.map or options.set or options.shift_to_now:
        raise UserError(
            "--map, --set and --shift-to-now change rows, and with VISITS_MAPPING they are sent as they are"
        )
    return MappedRecording(options.file, config.input_topics)


def _simulated(options: Namespace, config: Settings) -> _Work:
    now = math.floor(time.time() * 1000) / 1000
    start = now
    if options.start is not None:
        start = options.start
    elif options.history is not None:
        start = now - options.history
    elif options.speed != 1:
        start = now - options.events / options.rate - _SLACK - options.disorder
    if start > now:
        raise UserError("--start lies in the future")
    rows = simulate(
        start=start,
        rate=options.rate,
        users=options.users,
        seed=options.seed,
        events=options.events,
        gap=config.session_gap,
        window=config.match_window,
    )
    pace = Pace(options.speed, start, live=True, clock=time.time)
    if options.events is None:
        return _Work(rows, pace)
    return _Work(rows, pace, lambda sender: sender.user_events / options.events)


def _recorded(options: Namespace, recording: Recording | MappedRecording, display: SendingProgress) -> _Work:
    total, bad_lines, last = 0, 0, -math.inf

    def complain(line: int, reason: str) -> None:
        nonlocal bad_lines
        bad_lines += 1
        display.print(f"{options.file}:{line}: {reason}")

    def read() -> Iterator[Row]:
        nonlocal total, last
        for row in recording.rows(complain):
            total += 1
            last = max(last, row.time)
            display.reading(total, options.file.name)
            yield row

    rows = sorted_by_time(read())
    earliest = next(rows, None)  # reads the whole file
    if earliest is None:
        return _Work(iter(()), Pace(options.speed, 0, live=False, clock=time.time), bad_lines=bad_lines)
    rows, first = chain([earliest], rows), earliest.time
    if options.shift_to_now:
        ends = time.time() + (last - first) / options.speed
        seconds = math.floor(ends - last)
        rows, first = shifted(rows, seconds), first + seconds
    pace = Pace(options.speed, first, live=False, clock=time.time)
    return _Work(rows, pace, lambda sender: (sender.user_events + sender.purchases) / total, bad_lines)


def _send(work: _Work, options: Namespace, sender: Sender, stop: _Stop, display: SendingProgress) -> None:
    def show(event_time: float) -> None:
        display.sending(sender.user_events, sender.purchases, sender.unacknowledged, event_time, work.share(sender))

    leaves = 0.0
    for leaves, row in delayed(work.rows, options.disorder, options.seed):
        while not stop.wanted and (seconds := work.pace.wait_for(leaves)) > 0:
            sender.wait(min(max(seconds, 0.001), _ROUSED_EVERY))
            show(leaves)
        if stop.wanted or sender.broken:
            break
        sender.send(row)
        sender.wait(0)
        show(row.time)
    sender.flush(lambda: show(leaves))


if __name__ == "__main__":
    sys.exit(main())
