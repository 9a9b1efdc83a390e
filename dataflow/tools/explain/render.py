"""Renders a report as a timeline in the terminal, and as JSON."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.text import Text

from dataflow.clickstream.outputs import NO_EVENT, OTHER_ROW
from dataflow.clickstream.records import Event
from dataflow.clickstream.revenue import revenue_json
from dataflow.clickstream.rules import Rules
from dataflow.clickstream.serde import encode_visits
from dataflow.clickstream.session_summary import encode_session
from dataflow.clickstream.suspicion import explanation_of
from dataflow.observability.formatting import duration, pluralize, shortened, time_of_day, unix_seconds, utc_text
from dataflow.streaming.time import MIN_TIME, Time
from dataflow.tools.explain.collect import ObservedDeadLetter, ObservedRow
from dataflow.tools.explain.compare import Difference
from dataflow.tools.explain.report import (
    CLOSED_BY_LOG,
    EQUAL,
    OPEN,
    OTHER_EVENT,
    Candidate,
    Report,
    ReportPart,
    SessionReport,
    Step,
    UnmatchedRow,
)


class Renderer:
    """Prints a report.

    Args:
        console: where to print.
        report: the whole report.
        rules: the numbers in the rules.
        in_topics: says whether a session's rows are in the output topics.
        asked_for: address of the row to highlight; None: no row.
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
        """Prints the user with counts, and the watermark if something waits for it."""
        report, watermarks = self._report, self._report.watermarks
        if not report.user:
            return  # the report is about a message without a user
        parts = (
            f"{pluralize(sum(len(session.steps) for session in report.sessions), 'event')} on time",
            pluralize(len(report.purchases), "purchase row"),
            pluralize(len(report.sessions), "session"),
            f"{len(report.late) + len(report.overtaken)} late",
            pluralize(len(report.dead), "dead letter"),
        )
        self._say(f"user {report.user.decode()}: {', '.join(parts)}", "bold")
        if any(session.state == OPEN for session in report.sessions) or report.undecided:
            lowest = watermarks.lowest
            at = f"is at {utc_text(lowest.time)}, by its row {lowest.offset}"
            self._say(
                f"{watermarks.lowest_source} holds the watermark at {utc_text(watermarks.by_log)}: it "
                f"{at if lowest.offset is not None else 'has no row yet'}. The watermark of a job that has read "
                f"everything follows the clock and is at {utc_text(watermarks.by_clock)}",
                "dim",
            )

    def part(self, part: ReportPart) -> None:
        """Prints sessions, and the rows that are in none."""
        for session in part.sessions:
            self._session(session)
        self._late(part.late)
        self._overtaken(part.overtaken)
        self._unmatched(part.unmatched, "")
        self._unmatched(part.undecided, "so far ")
        self._dead(part.dead)

    def end(self, differences: list[Difference], notes: list[str]) -> None:
        """Prints the notes, and whether the output topics agree with the report."""
        self._say()
        for note in notes:
            self._say(f"Note: {note}.", "yellow")
        if not differences:
            self._say("The output topics hold exactly this.", "green")
            return
        self._say("The output topics differ:", "bold yellow")
        for difference in differences:
            rows = pluralize(difference.rows, "row")
            self._say(f"   {difference.topic}: {rows} of {difference.of}: {difference.what}", "yellow")

    def _session(self, session: SessionReport) -> None:
        color = "yellow" if session.result.suspicion is not None else "green" if session.state != OPEN else "cyan"
        self._say()
        self._say(f"session {session.identity}  {session.state}, {self._in_topics(session)}", f"bold {color}")
        self._say(f" ┌ began {utc_text(session.start)}: {self._began(session)}", color)
        width = max(len(step.event.event_type) for step in session.steps)
        for step in session.steps:
            self._step(step, width, color, first=step is session.steps[0])
        self._say(f" └ ended {utc_text(session.end)}: {self._ended(session)}", color)
        self._say(f"   {self._amount(session)}")
        if reason := suspicious_because(session, self._rules):
            self._say(f"   suspicious, type {session.result.suspicion}: {reason}", "yellow")

    def _late(self, rows: Iterable[ObservedRow]) -> None:
        for observed in rows:
            self._rejected("late", observed)
            below, allowed = int(observed.max_timestamp.time - observed.row.time), self._rules.lateness
            self._say(
                f"   {duration(below)} below the highest time of its partition, {duration(allowed)} are allowed: "
                f"row {observed.max_timestamp.offset} set it to {utc_text(observed.max_timestamp.time)}"
            )

    def _overtaken(self, rows: Iterable[ObservedRow]) -> None:
        for observed in rows:
            self._rejected("late", observed)
            self._say(
                "   on time in its partition by these settings, but the job rejected it: the partition was idle and "
                "the watermark had passed the row, or the job had other settings. In a replay it would be on time"
            )

    def _unmatched(self, rows: Iterable[UnmatchedRow], so_far: str) -> None:
        window = duration(self._rules.window)
        texts = {
            NO_EVENT: f"no purchase event of this user lies within {window} of it",
            OTHER_ROW: f"every purchase event of this user within {window} of it takes another row",
        }
        for unmatched in rows:
            self._rejected("unmatched", unmatched.observed)
            self._say(f"   {so_far}{texts[unmatched.reason]}")

    def _rejected(self, why: str, observed: ObservedRow) -> None:
        what = (
            observed.event.event_type
            if type(observed.row) is Event
            else f"purchase row of {observed.purchase.amount.decode()}"
        )
        self._say()
        self._say(f"{why}  {utc_text(observed.row.time)}  {what}  {self._where(observed)}", "bold red")

    def _dead(self, dead_letters: Iterable[ObservedDeadLetter]) -> None:
        for dead in dead_letters:
            self._say()
            self._say(f"dead letter  {dead.where}", "bold red")
            self._say(f"   {dead.rejected.reason}")
            self._say(f"   {shortened(dead.rejected.value)}", "dim")

    def _step(self, step: Step, width: int, color: str, first: bool) -> None:
        event = step.event
        gap = "" if step.gap is None or first else f"+{duration(step.gap)}"
        line = f"{time_of_day(event.time):<15} {gap:>12}  {event.event_type:<{width}}  {_page(event.page):<11} "
        line += self._where(step.observed)
        self._line(color, line, "bold" if step.observed.where == self._asked_for else "")
        if event.amount:
            self._line(color, f"{'':28}  amount {event.amount.decode()}, its own", "")
        elif step.is_purchase and not step.candidates:
            self._line(color, f"{'':28}  no amount: no purchase row within {duration(self._rules.window)}", "dim")
        elif step.is_purchase and step.taken is None:
            self._line(color, f"{'':28}  no amount: other purchase events take the rows in its time", "dim")
        for candidate in step.candidates:
            self._line(
                color, f"{'':28}  {self._candidate(step, candidate)}", "" if candidate.beaten_by is None else "dim"
            )

    def _candidate(self, step: Step, candidate: Candidate) -> str:
        row = candidate.observed.purchase
        apart = row.time - step.event.time
        side = "at the same time" if not apart else f"{duration(abs(apart))} {'later' if apart > 0 else 'earlier'}"
        if candidate.beaten_by == OTHER_EVENT:
            assert candidate.taken_by is not None
            verdict = f"not taken: the purchase event at {time_of_day(candidate.taken_by.row.time)} takes it"
        elif candidate.beaten_by is not None:
            verdict = f"not taken: {_BEATEN[candidate.beaten_by]}"
        elif len(step.candidates) == 1:
            verdict = "taken: the only one"
        else:
            free = (each.beaten_by for each in step.candidates[1:] if each.beaten_by != OTHER_EVENT)
            verdict = f"taken: {_WON[next(free, None) or OTHER_EVENT]}"
        return f"{row.amount.decode()}  {self._where(candidate.observed)}  {side}, {_page(row.page)}  {verdict}"

    def _began(self, session: SessionReport) -> str:
        gap = session.steps[0].gap
        if gap is None:
            return "the first event of this user"
        return f"{duration(gap)} after the event before, more than the gap of {duration(self._rules.gap)}"

    def _ended(self, session: SessionReport) -> str:
        sessions = self._report.sessions
        after = sessions[sessions.index(session) + 1 :]
        if after:
            apart = after[0].start - session.end
            text = f"the next event is {duration(apart)} later, more than the gap of {duration(self._rules.gap)}"
        else:
            text = "the last event of this user"
        if session.state == OPEN:
            return f"{text}; still open, it closes at {utc_text(session.due)} at the earliest, if no further row comes"
        return text

    def _amount(self, session: SessionReport) -> str:
        if session.paid_by is None:
            has_purchase = any(step.is_purchase for step in session.steps)
            return f"amount 0: {'no purchase event has an amount' if has_purchase else 'no purchase event'}"
        with_amount = sum(step.amount is not None for step in session.steps)
        revenue = revenue_json(session.result.revenue).decode()
        others = f", the last of {with_amount} that have one; revenue {revenue}" if with_amount > 1 else ""
        at = time_of_day(session.paid_by.event.time)
        return f"amount {session.result.amount.decode()}, of the purchase event at {at}{others}"

    def _where(self, observed: ObservedRow) -> str:
        put_back = f" (put back from {observed.redriven})" if observed.redriven else ""
        return observed.where + put_back + ("  ◀ asked for" if observed.where == self._asked_for else "")

    def _line(self, color: str, text: str, style: str) -> None:
        self._print(Text.assemble((" │ ", color), (text.rstrip(), style)))

    def _say(self, text: str = "", style: str = "") -> None:
        self._print(Text(text, style))

    def _print(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)


def _page(page: int | str | None) -> str:
    return f"page {page}" if page not in ("", None) else "no page"


_BEATEN = {
    "same page": "the other is of the same page",
    "nearer": "the other is nearer",
    "later": "the other is as near, and later",
    "larger": "the other is of the same time, and larger",
    "by its text": "the other is the same number, and its text sorts later",
    EQUAL: "the other is equal",
}
_WON = {  # by the reason for which the second best was beaten
    "same page": "of the same page",
    "nearer": "the nearest",
    "later": "the latest of the nearest",
    "larger": "the largest",
    "by its text": "its text sorts last",
    EQUAL: "equal to the other",
    OTHER_EVENT: "the only one that no other event takes",
}


def suspicious_because(session: SessionReport, rules: Rules) -> str | None:
    """Why a session is suspicious; None: it is not."""
    suspicion = session.result.suspicion
    return (
        explanation_of(suspicion, session.result.events, rules.thresholds, rules.kinds)
        if suspicion is not None
        else None
    )


# --- JSON ---


def as_data(
    report: Report,
    part: ReportPart,
    rules: Rules,
    in_topics: Callable[[SessionReport], str],
    differences: list[Difference],
    notes: list[str],
) -> dict[str, Any]:
    """The report as a JSON object; times are Unix seconds, durations are seconds. See `Renderer` for the arguments."""
    watermarks = report.watermarks
    return {
        "user_id": _user_id(report.user),
        "sessions": [_session(session, rules, in_topics(session)) for session in part.sessions],
        "late": [_late(observed) for observed in part.late] + [_overtaken(observed) for observed in part.overtaken],
        "unmatched_purchases": [
            *({**_row(each.observed), "decided": True, "reason": each.reason} for each in part.unmatched),
            *({**_row(each.observed), "decided": False, "reason": each.reason} for each in part.undecided),
        ],
        "dead_letters": [
            {"message": dead.where, "reason": dead.rejected.reason, "value": _text(dead.rejected.value)}
            for dead in part.dead
        ],
        "watermark": unix_seconds(watermarks.by_log),
        "watermark_by_clock": unix_seconds(watermarks.by_clock),
        "lowest_mark": {
            "partition": watermarks.lowest_source,
            "time": unix_seconds(watermarks.lowest.time),
            "offset": watermarks.lowest.offset,
        },
        "notes": notes,
        "agrees": not differences,
        "differences": [
            {"topic": difference.topic, "of": difference.of, "rows": difference.rows, "what": difference.what}
            for difference in differences
        ],
    }


def _session(session: SessionReport, rules: Rules, in_topics: str) -> dict[str, Any]:
    result = session.result
    return {
        "session_id": session.identity,
        "start": unix_seconds(session.start),
        "end": unix_seconds(session.end),
        "state": session.state,
        "closed": session.state != OPEN,
        "closed_by_log": session.state == CLOSED_BY_LOG,
        "due": unix_seconds(session.due),
        "in_topics": in_topics,
        "amount": result.amount.decode(),
        "revenue": revenue_json(result.revenue).decode(),
        "amount_of": session.paid_by.observed.where if session.paid_by is not None else None,
        "suspicious": result.suspicion,
        "suspicious_because": suspicious_because(session, rules),
        "gap_before": _seconds(session.steps[0].gap),
        "events": [
            {
                **_row(step.observed),
                "gap": _seconds(step.gap),
                "candidates": [
                    {
                        **_row(candidate.observed),
                        "amount": candidate.observed.purchase.amount.decode(),
                        "same_page": candidate.match.same_page,
                        "taken": candidate.beaten_by is None,
                        "beaten_by": candidate.beaten_by,
                        "taken_by": candidate.taken_by.where if candidate.taken_by is not None else None,
                    }
                    for candidate in step.candidates
                ],
            }
            for step in session.steps
        ],
        "visits": [row.decode() for row in encode_visits(result.events, result.identity, result.amount, rules.added)],
        "session_row": encode_session(result, rules.kinds).decode(),
    }


def _late(observed: ObservedRow) -> dict[str, Any]:
    highest = observed.max_timestamp
    return {
        **_row(observed),
        "mark": unix_seconds(highest.time),
        "mark_offset": highest.offset,
        "below_mark": _seconds(highest.time - observed.row.time),
        "overtaken": False,
    }


def _overtaken(observed: ObservedRow) -> dict[str, Any]:
    return {**_row(observed), "mark": None, "mark_offset": None, "below_mark": None, "overtaken": True}


def _row(observed: ObservedRow) -> dict[str, Any]:
    row = observed.row
    return {
        "message": observed.where,
        "time": unix_seconds(row.time),
        "stored": unix_seconds(observed.stored),
        "page_id": row.page if row.page != "" else None,
        **({"event_type": row.event_type} if type(row) is Event else {"amount": observed.purchase.amount.decode()}),
        "redriven_from": observed.redriven,
    }


def _user_id(user: bytes) -> int | str | None:
    """A number if it looks like one: the report does not tell `5` from `"5"`, which are one user."""
    text = user.decode()
    if not text:
        return None
    return int(text) if re.fullmatch(r"0|-?[1-9][0-9]{0,4000}", text) else text


def _seconds(microseconds: Time | None) -> float | None:
    return unix_seconds(microseconds) if microseconds is not None and microseconds != MIN_TIME else None


def _text(value: bytes | None) -> str | None:
    return value.decode(errors="backslashreplace") if value is not None else None
