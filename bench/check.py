"""Holds what a contender has written against the right answer."""

from collections import Counter
from dataclasses import dataclass

import msgspec

from bench.answer import Answer, Digest, SessionSeen
from dataflow.runtime.settings import Settings
from dataflow.tools.verify import Topics


@dataclass(frozen=True)
class Verdict:
    """What was wrong with what a run has written."""

    wrong: int  # topics; of a program that writes its rows in its own way, events
    lost: int = 0  # events of which there is nothing at all


def all_rows(settings: Settings, answer: Answer) -> Verdict:
    """Compares every row of all output topics but `sessions`, and counts the topics that are not as they should be."""
    reader = Topics(settings)
    expected = {
        settings.topic_visits: answer.visits,
        settings.topic_suspicious_visits: answer.suspicious_visits,
        settings.topic_late_events: answer.late_events,
        settings.topic_dead_letters: answer.dead_letters,
        settings.topic_unmatched_purchases: answer.unmatched_purchases,
    }
    return Verdict(sum(_digest(reader, topic) != digest for topic, digest in expected.items()))


def _digest(reader: Topics, topic: str) -> Digest:
    digest = Digest()
    for message in reader.read(topic):
        digest.add(message.key(), message.value())
    return digest


class _Visit(msgspec.Struct, gc=False):
    user_id: int
    timestamp: float
    session_id: str
    amount: float


def all_sessions(settings: Settings, answer: Answer) -> Verdict:
    """Counts the events that are lost, or not in a session of the right length with the right amount.

    That is as much as can be asked of a program that writes other ids and formats its rows in its own way.
    """
    decode = msgspec.json.Decoder(_Visit).decode
    written: dict[tuple[int, str, float], list[float]] = {}
    for message in Topics(settings).read(settings.topic_visits):
        visit = decode(message.value() or b"")
        written.setdefault((visit.user_id, visit.session_id, visit.amount), []).append(visit.timestamp)
    seen = Counter(
        SessionSeen(user, round(min(times) * 1000), round(max(times) * 1000), len(times), amount)
        for (user, _, amount), times in written.items()
    )
    missing = (answer.sessions or Counter()) - seen
    wrong = sum(session.events * count for session, count in missing.items())
    lost = answer.visits.rows - sum(map(len, written.values()))
    return Verdict(wrong - lost, lost)
