"""The story as a timeline in the terminal, and as JSON."""

from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from dataflow.clickstream.attribution import PURCHASE
from dataflow.clickstream.records import Event
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import encode_visits
from dataflow.clickstream.suspicion import explanation_of
from dataflow.observability.formatting import duration, pluralize, shortened, time_of_day, unix_seconds, utc_text
from dataflow.streaming.time import MIN_TIME, Time
from dataflow.tools.explain.collect import ObservedDeadLetter, ObservedRow
from dataflow.tools.explain.compare import Difference
from dataflow.tools.explain.report import CLOSED_BY_LOG, OPEN, Candidate, Report, ReportPart, SessionReport, Step


class Renderer:
    """Draws parts of a story.

    Args:
        console: where.
        story: what there is to say.
        rules: the numbers in the rules.
        in_topics: says what the output topics hold of a session.
        asked_for: "topic/partition/offset" of the message that was asked for, to be marked.
    """

    def __init__(
        self,
        console: Console,
        report: Report,
        rules: Rules,
        in_topics: Callable[[SessionReport], str],
        asked_for: str | None,
    ) -> None:
        self._console = console
        self._report = report
        self._rules = rules
        self._in_topics = in_topics
        self._asked_for = asked_for

    def head(self) -> None:
        """Who it is about, and how far event time is."""
        report, waiting = self._report, self._report.waiting
        if not report.user:
            return  # a message that is nobody's
        parts = (
            f"{pluralize(sum(len(session.steps) for session in report.sessions), 'event')} on time",
            pluralize(len(report.purchases), "purchase row"),
            pluralize(len(report.sessions), "session"),
            f"{len(report.late) + len(report.overtaken)} late",
            pluralize(len(report.dead), "dead letter"),
        )
        self._say(f"user {report.user.decode()}: {', '.join(parts)}", "bold")
        if any(session.state == OPEN for session in report.sessions) or report.undecided:
            made = "has no row yet" if waiting.lowest_mark.offset is None else (
                f"is at {utc_text(waiting.lowest_mark.time)}, by its row {waiting.lowest_mark.offset}"
            )  # fmt: skip
            self._say(
                f"the watermark is held at {utc_text(waiting.watermark)} by {waiting.lowest}, which {made}; a job that "
                f"has read everything goes on by the clock and is at {utc_text(waiting.by_clock)}",
                "dim",
            )

    def part(self, part: ReportPart) -> None:
        """Sessions, and what is not in one."""
        for told in part.sessions:
            self._session(told)
        self._late(part.late)
        self._overtaken(part.overtaken)
        self._unmatched(part.unmatched, "no")
        self._unmatched(part.undecided, "so far no")
        self._dead(part.dead)

    def end(self, differences: list[Difference], notes: list[str]) -> None:
        """Whether the topics hold what is told here, and what else there is to know."""
        self._say()
        for note in notes:
            self._say(f"Note: {note}.", "yellow")
        if not differences:
            self._say("The output topics hold exactly this.", "green")
            return
        self._say("The output topics hold something else:", "bold yellow")
        for each in differences:
            self._say(f"   {each.topic}: {pluralize(each.rows, 'row')} of {each.of}: {each.what}", "yellow")

    def _session(self, told: SessionReport) -> None:
        color = "yellow" if told.finished.suspicion is not None else "green" if told.state != OPEN else "cyan"
        self._say()
        self._say(f"session {told.identity}  {told.state}, {self._in_topics(told)}", f"bold {color}")
        self._say(f" ┌ began {utc_text(told.start)}: {self._began(told)}", color)
        width = max(len(step.event.event_type) for step in told.steps)
        for step in told.steps:
            self._step(step, width, color, first=step is told.steps[0])
        self._say(f" └ ended {utc_text(told.end)}: {self._ended(told)}", color)
        self._say(f"   {self._amount(told)}")
        if reason := suspicious_because(told, self._rules):
            self._say(f"   suspicious, type {told.finished.suspicion}: {reason}", "yellow")

    def _late(self, rows: Iterable[ObservedRow]) -> None:
        for seen in rows:
            self._not_taken("late", seen)
            below, allowed = int(seen.max_timestamp.time - seen.row.time), self._rules.lateness
            self._say(
                f"   {duration(below)} below the mark of its partition, {duration(allowed)} are allowed: "
                f"row {seen.max_timestamp.offset} had set it at {utc_text(seen.max_timestamp.time)}"
            )

    def _overtaken(self, rows: Iterable[ObservedRow]) -> None:
        for seen in rows:
            self._not_taken("late", seen)
            self._say(
                "   on time by its partition and these settings, but the job has called it late: the partition had run "
                "dry and the job had gone on without it, or it had other settings; a replay would take it"
            )

    def _unmatched(self, rows: Iterable[ObservedRow], no: str) -> None:
        for seen in rows:
            self._not_taken("unmatched", seen)
            self._say(f"   {no} purchase event of this user lies within {duration(self._rules.window)} of it")

    def _not_taken(self, why: str, seen: ObservedRow) -> None:
        what = seen.event.event_type if type(seen.row) is Event else f"purchase row of {seen.purchase.amount.decode()}"
        self._say()
        self._say(f"{why}  {utc_text(seen.row.time)}  {what}  {self._where(seen)}", "bold red")

    def _dead(self, letters: Iterable[ObservedDeadLetter]) -> None:
        for dead in letters:
            self._say()
            self._say(f"dead letter  {dead.where}", "bold red")
            self._say(f"   {dead.rejected.reason}")
            self._say(f"   {shortened(dead.rejected.value)}", "dim")

    def _step(self, step: Step, width: int, color: str, first: bool) -> None:
        event = step.event
        gap = "" if step.gap is None or first else f"+{duration(step.gap)}"
        line = f"{time_of_day(event.time):<15} {gap:>12}  {event.event_type:<{width}}  page {event.page:<6} "
        line += self._where(step.seen)
        self._line(color, line, "bold" if step.seen.where == self._asked_for else "")
        if event.event_type == PURCHASE and not step.candidates:
            self._line(color, f"{'':28}  no amount: no purchase row within {duration(self._rules.window)}", "dim")
        for candidate in step.candidates:
            self._line(
                color, f"{'':28}  {self._candidate(step, candidate)}", "" if candidate.beaten_by is None else "dim"
            )

    def _candidate(self, step: Step, candidate: Candidate) -> str:
        row = candidate.seen.purchase
        apart = row.time - step.event.time
        side = "at the same time" if not apart else f"{duration(abs(apart))} {'later' if apart > 0 else 'earlier'}"
        if candidate.beaten_by is not None:
            verdict = f"not taken: {_BEATEN[candidate.beaten_by]}"
        elif len(step.candidates) == 1:
            verdict = "taken: the only one"
        else:
            verdict = f"taken: {_WON[step.candidates[1].beaten_by or 'no less']}"
        return f"{row.amount.decode()}  {self._where(candidate.seen)}  {side}, page {row.page}  {verdict}"

    def _began(self, told: SessionReport) -> str:
        gap = told.steps[0].gap
        if gap is None:
            return "the first event of this user"
        return f"{duration(gap)} after the event before, more than the gap of {duration(self._rules.gap)}"

    def _ended(self, told: SessionReport) -> str:
        sessions = self._report.sessions
        after = sessions[sessions.index(told) + 1 :]
        if after:
            apart = after[0].start - told.end
            text = f"the next event is {duration(apart)} later, more than the gap of {duration(self._rules.gap)}"
        else:
            text = "the last event of this user"
        if told.state == OPEN:
            return f"{text}; still open, it closes at {utc_text(told.due)} at the earliest, if nothing more comes"
        return text

    def _amount(self, told: SessionReport) -> str:
        if told.paid_by is None:
            buys = sum(step.event.event_type == PURCHASE for step in told.steps)
            return f"amount 0: {'none of its purchase events has one' if buys else 'no purchase event'}"
        others = sum(bool(step.candidates) for step in told.steps) - 1
        last = f", the last of {others + 1} that have one" if others else ""
        return f"amount {told.finished.amount.decode()}, of the purchase event at {time_of_day(told.paid_by.event.time)}{last}"

    def _where(self, seen: ObservedRow) -> str:
        asked = "  ◀ asked for" if seen.where == self._asked_for else ""
        return seen.where + (f" (put back from {seen.redriven})" if seen.redriven else "") + asked

    def _line(self, color: str, text: str, style: str) -> None:
        self._print(Text.assemble((" │ ", color), (text.rstrip(), style)))

    def _say(self, text: str = "", style: str = "") -> None:
        self._print(Text(text, style))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


_BEATEN = {
    "same page": "the other is of the same page",
    "nearer": "the other is nearer",
    "later": "the other is as near, and later",
    "larger": "the other is of the same time, and larger",
    "by its text": "the other is the same number, and stands behind it as text",
    "no less": "the other is its equal",
}
_WON = {  # by why the second best was beaten
    "same page": "of the same page",
    "nearer": "the nearest",
    "later": "of the nearest the latest",
    "larger": "the largest",
    "by its text": "the last by its text",
    "no less": "equal to the other",
}


def suspicious_because(told: SessionReport, rules: Rules) -> str | None:
    """What makes a session suspicious."""
    suspicion = told.finished.suspicion
    return explanation_of(suspicion, told.finished.events, rules.thresholds) if suspicion is not None else None


# --- for machines ---


def as_data(
    report: Report,
    part: ReportPart,
    rules: Rules,
    in_topics: Callable[[SessionReport], str],
    differences: list[Difference],
    notes: list[str],
) -> dict[str, Any]:
    """Everything that is drawn; times are Unix seconds, distances seconds."""
    waiting = report.waiting
    undecided = {seen.where for seen in report.undecided}
    taken_over = {seen.where for seen in report.overtaken}
    return {
        "user_id": int(report.user) if report.user else None,
        "sessions": [_session(told, rules, in_topics(told)) for told in part.sessions],
        "late": [
            {
                **_row(seen),
                "mark": None if seen.where in taken_over else unix_seconds(seen.max_timestamp.time),
                "mark_offset": None if seen.where in taken_over else seen.max_timestamp.offset,
                "below_mark": None if seen.where in taken_over else _distance(seen.max_timestamp.time - seen.row.time),
                "overtaken": seen.where in taken_over,
            }
            for seen in part.late + part.overtaken
        ],
        "unmatched_purchases": [
            {**_row(seen), "decided": seen.where not in undecided} for seen in part.unmatched + part.undecided
        ],
        "dead_letters": [
            {"message": each.where, "reason": each.rejected.reason, "value": _text(each.rejected.value)}
            for each in part.dead
        ],
        "watermark": unix_seconds(waiting.watermark),
        "watermark_by_clock": unix_seconds(waiting.by_clock),
        "lowest_mark": {
            "partition": waiting.lowest,
            "time": unix_seconds(waiting.lowest_mark.time),
            "offset": waiting.lowest_mark.offset,
        },
        "notes": notes,
        "agrees": not differences,
        "differences": [
            {"topic": each.topic, "of": each.of, "rows": each.rows, "what": each.what} for each in differences
        ],
    }


def _session(told: SessionReport, rules: Rules, in_topics: str) -> dict[str, Any]:
    finished = told.finished
    return {
        "session_id": told.identity,
        "start": unix_seconds(told.start),
        "end": unix_seconds(told.end),
        "state": told.state,
        "closed": told.state != OPEN,
        "closed_by_log": told.state == CLOSED_BY_LOG,
        "due": unix_seconds(told.due),
        "in_topics": in_topics,
        "amount": finished.amount.decode(),
        "amount_of": told.paid_by.seen.where if told.paid_by is not None else None,
        "suspicious": finished.suspicion,
        "suspicious_because": suspicious_because(told, rules),
        "gap_before": _distance(told.steps[0].gap),
        "events": [
            {
                **_row(step.seen),
                "gap": _distance(step.gap),
                "candidates": [
                    {
                        **_row(each.seen),
                        "amount": each.seen.purchase.amount.decode(),
                        "same_page": each.match.same_page,
                        "taken": each.beaten_by is None,
                        "beaten_by": each.beaten_by,
                    }
                    for each in step.candidates
                ],
            }
            for step in told.steps
        ],
        "visits": [row.decode() for row in encode_visits(finished.events, finished.identity, finished.amount)],
    }


def _row(seen: ObservedRow) -> dict[str, Any]:
    row = seen.row
    return {
        "message": seen.where,
        "time": unix_seconds(row.time),
        "stored": unix_seconds(seen.stored),
        "page_id": row.page,
        **({"event_type": row.event_type} if type(row) is Event else {"amount": seen.purchase.amount.decode()}),
        "redriven_from": seen.redriven,
    }


def _distance(microseconds: Time | None) -> float | None:
    return unix_seconds(microseconds) if microseconds is not None and microseconds != MIN_TIME else None


def _text(value: bytes | None) -> str | None:
    return value.decode(errors="backslashreplace") if value is not None else None
