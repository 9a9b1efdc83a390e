"""A flow of one's own with the same parts: what bursts of trading were worth.

    python -m bytewax.run examples.trades:flow

Trades say how many shares changed hands, quotes at what price. A quote is for one trade, at most 2 s away. Trades of one stock with at most 30 s between them are a burst; when it is over, one line says how
many shares it moved and for how much. Rows come in several files, each in its own order, and may be up to 5 s late.

Watermark, join and session windows are the job's own (`dataflow.streaming`). Here are the rules: what rows are, which
match, and what a session is folded into. See docs/library.md.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import bytewax.operators as op
import msgspec
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.outputs import Sink
from bytewax.testing import TestingSource

from dataflow.streaming.alignment import SourceAlignment
from dataflow.streaming.batches import PolledBatch
from dataflow.streaming.interval_join import JoinSpec
from dataflow.streaming.operators import IdentitySerializer, interval_join, session_window, track_watermark
from dataflow.streaming.partition_reader import PartitionReader, TopicDecoder, Unreadable
from dataflow.streaming.session_windows import Session
from dataflow.streaming.sharding import sharder
from dataflow.streaming.state import JobFingerprint
from dataflow.streaming.time import MAX_TIME, MIN_TIME, SECOND
from dataflow.streaming.watermark import SourceProgress

LATENESS, WINDOW, GAP = 5 * SECOND, 2 * SECOND, 30 * SECOND
RETENTION = max(GAP, 2 * WINDOW)
SHARDS = 4

FILES = {  # a small morning, by topic and partition
    "trades/0": b"""\
{"stock": "ACME", "time": 0, "shares": 100}
{"stock": "ACME", "time": 12.5, "shares": 40}
{"stock": "BOLT", "time": 14, "shares": 7}
{"stock": "ACME", "time": 44, "shares": 500}
{"stock": "BOLT", "time": 100, "shares": 1}
{"stock": "BOLT", "time": 14, "shares": 9}
""",
    "trades/1": b"""\
{"stock": "ACME", "time": 20, "shares": 60}
{"stock": "BOLT", "time": 43, "shares": 3}
""",
    "quotes/0": b"""\
{"stock": "ACME", "time": 1, "price": 10.0}
{"stock": "ACME", "time": 13, "price": 10.5}
{"stock": "BOLT", "time": 13, "price": 99.0}
{"stock": "ACME", "time": 19.5, "price": 11.0}
{"stock": "ACME", "time": 20.5, "price": 11.5}
{"stock": "ACME", "time": 45.5, "price": 12.0}
{"stock": "BOLT", "time": 101, "price": 90.0}
""",
}


class Trade(msgspec.Struct):
    """`user` is whose session a row belongs to: here the stock."""

    time: int
    user: bytes
    position: int  # where it stands
    shares: int


class Quote(msgspec.Struct):
    time: int
    user: bytes
    price: float


class Deal(msgspec.Struct):
    """A trade and the quote that prices it."""

    time: int  # of the trade
    user: bytes
    shares: int
    price: float


def deal(trade: Trade, quote: Quote) -> Deal:
    return Deal(trade.time, trade.user, trade.shares, quote.price)


PRICES = JoinSpec(left=Trade, probes=lambda trades: trades, probe=Trade, right=Quote, match=deal)


class Burst(msgspec.Struct):
    """The fold: how many shares each trade of a session moved, and what those were worth that have a price."""

    shares: list[int] = []
    worths: list[float] = []


def add(burst: Burst, row: Trade | Deal) -> Burst:
    if isinstance(row, Trade):
        burst.shares.append(row.shares)
    else:
        burst.worths.append(row.shares * row.price)
    return burst


def unite(burst: Burst, later: Burst) -> Burst:
    burst.shares += later.shares
    burst.worths += later.worths
    return burst


def line(session: Session[Burst]) -> str:
    """The line that a closed burst gives."""
    burst = session.fold
    trades, unknown = len(burst.shares), len(burst.shares) - len(burst.worths)
    worth = math.fsum(burst.worths)  # unlike sum(), the same in any order
    return (
        f"{session.user.decode()} {session.start / SECOND:g}-{session.end / SECOND:g} s: {trades} trades, "
        f"{sum(burst.shares)} shares, {worth:.2f}" + (f", {unknown} without a price" if unknown else "")
    )


class _TradeText(msgspec.Struct):
    stock: str
    time: float
    shares: int


class _QuoteText(msgspec.Struct):
    stock: str
    time: float
    price: float


def read_trade(value: bytes | None, position: int, message: object) -> Trade:
    try:
        text = msgspec.json.decode(value or b"", type=_TradeText)
    except msgspec.DecodeError as error:
        raise Unreadable(str(error), "json") from None
    return Trade(round(text.time * SECOND), text.stock.encode(), position, text.shares)


def read_quote(value: bytes | None, position: int, message: object) -> Quote:
    try:
        text = msgspec.json.decode(value or b"", type=_QuoteText)
    except msgspec.DecodeError as error:
        raise Unreadable(str(error), "json") from None
    return Quote(round(text.time * SECOND), text.stock.encode(), text.price)


@dataclass(frozen=True)
class Line:
    """A message, as `PartitionReader` needs it."""

    text: bytes
    number: int

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return self.text

    def offset(self) -> int:
        return self.number

    def timestamp(self) -> tuple[int, int]:
        return 0, 0  # no time in Kafka


def polls(files: Mapping[str, bytes]) -> Iterator[PolledBatch]:
    """One line of each file in turn, with the progress of its source; then the end of every source."""
    sources = tuple(files)
    readers = {
        name: PartitionReader(name, TopicDecoder(read_quote if name.startswith("quotes") else read_trade), LATENESS)
        for name in files
    }
    lines = {name: text.splitlines() for name, text in files.items()}
    now = 86_400 * SECOND  # by the wall clock, when it is read: a row from farther ahead would be unreadable
    for number in range(max(map(len, lines.values()))):
        for name, reader in readers.items():
            chunk = [Line(text, number) for text in lines[name][number : number + 1]]
            yield reader.read(chunk, SourceProgress(name, MIN_TIME, now, None, sources))
    for name in files:
        yield PolledBatch([], SourceProgress(name, MAX_TIME, now, None, sources), [], [])


def build(read: Iterable[PolledBatch], out: Sink[str]) -> Dataflow:
    """The flow: compare with `dataflow.clickstream.topology`."""
    flow, fingerprint = Dataflow("trades"), JobFingerprint(SHARDS)
    read_polls = op.input("read", flow, TestingSource(read))
    batches = op.flat_map("shard", read_polls, sharder(SHARDS))
    on_time = track_watermark("clock", batches, LATENESS, fingerprint, SourceAlignment())
    priced = interval_join("price", on_time, WINDOW, PRICES, fingerprint, RETENTION)
    bursts = session_window("bursts", priced, GAP, RETENTION, fingerprint, Burst, add, unite, IdentitySerializer(Burst))
    lines = op.flat_map("tell", bursts, lambda keyed: map(line, keyed[1]))
    late = op.flat_map("take_late", read_polls, lambda poll: poll.late)
    late_lines = op.map("tell_late", late, lambda row: f"{row.user.decode()} {row.time / SECOND:g} s: too late")
    op.output("write", op.merge("merge", lines, late_lines), out)
    return flow


def flow() -> Dataflow:
    return build(list(polls(FILES)), StdOutSink())
