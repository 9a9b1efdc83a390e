"use strict";
// Draws a user's swim lane: events on top, purchase rows in the middle, sessions below, and the watermark across all.

const LANE = { left: 74, right: 24, hits: 44, paid: 92, spans: 124, row: 36, bar: 14, label: 190, amount: 60, shortest: 40, second: 5 };

function svg(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function titled(element, text) {
  element.append(svg("title", {}, text));
  return element;
}

function pageOf(row) {
  return row.page === null || row.page === "" ? "no page" : `page ${row.page}`;
}

// The range of event time that is drawn, and the x position of a time. Old events are cut off if a second gets too narrow.
function scale(lane, watermark, width) {
  const times = [...lane.hits, ...lane.purchases].map((each) => each.time);
  const closes = lane.sessions.map((each) => each.closes || each.end);
  const to = Math.max(...times, ...closes, watermark === null ? -Infinity : Math.min(watermark, Math.max(...closes, ...times) + 30)) + 2;
  const first = Math.min(...times);
  const room = width - LANE.left - LANE.right;
  const from = Math.max(Math.min(first, to - LANE.shortest) - 4, to - room / LANE.second);
  return { from, to, x: (time) => LANE.left + ((time - from) / (to - from)) * room };
}

// Sessions whose labels would overlap go into separate rows.
function rowsOf(sessions, x) {
  const ends = [];
  return sessions.map((each) => {
    const start = x(each.start);
    let row = ends.findIndex((end) => end < start);
    if (row < 0) row = ends.push(0) - 1;
    ends[row] = Math.max(x(each.closes || each.end) + 12, start + LANE.label);
    return row;
  });
}

// Where an amount fits: right of its purchase row (1), left of it (-1), or nowhere (0).
function sideOf(purchases, number, x) {
  const room = (left, right) => !left || !right || x(right.time) - x(left.time) > LANE.amount;
  if (room(purchases[number], purchases[number + 1])) return 1;
  return room(purchases[number - 1], purchases[number]) ? -1 : 0;
}

function drawLane(lane, watermark, width) {
  const { from, to, x } = scale(lane, watermark, width);
  const sessions = lane.sessions.filter((each) => (each.closes || each.end) >= from);
  const rows = rowsOf(sessions, x);
  const height = LANE.spans + (Math.max(0, ...rows) + 1) * LANE.row + 6;
  const drawn = svg("svg", { width, height, role: "img" });
  drawn.append(svg("title", {}, "Events, purchase rows and sessions of the user over event time"));

  const step = [5, 10, 20, 30, 60].find((each) => ((to - from) / each) * 62 <= width - LANE.left) || 60;
  for (let time = Math.ceil(from / step) * step; time <= to; time += step) {
    drawn.append(svg("line", { x1: x(time), x2: x(time), y1: 22, y2: height - 8, class: "grid" }));
    drawn.append(svg("text", { x: x(time), y: 14, "text-anchor": "middle" }, clock(time)));
  }
  for (const [name, y] of [["events", LANE.hits], ["purchases", LANE.paid], ["sessions", LANE.spans + LANE.bar / 2]]) {
    drawn.append(svg("text", { x: 0, y: y + 4, class: "name" }, name));
  }
  const visible = (each) => each.time >= from;

  for (const met of lane.matches) {
    if (Math.min(met.event, met.paid) < from) continue;
    const line = svg("line", { x1: x(met.event), y1: LANE.hits, x2: x(met.paid), y2: LANE.paid, class: met.taken ? "met taken" : "met" });
    drawn.append(titled(line, met.taken ? `${met.amount} is the session's amount` : `${met.amount} is this event's`));
  }
  for (const hit of lane.hits.filter(visible)) {
    const dot = svg("circle", { cx: x(hit.time), cy: LANE.hits, r: hit.kind === "purchase" ? 6 : 5, class: `hit ${hit.late ? "late" : hit.kind}` });
    drawn.append(titled(dot, `${clock(hit.time, 3)} ${hit.type}, ${pageOf(hit)}, at ${hit.at}${hit.late ? ", late" : ""}`));
  }
  const purchases = lane.purchases.filter(visible);
  purchases.forEach((paid, number) => {
    const [cx, cy] = [x(paid.time), LANE.paid];
    const diamond = svg("path", { d: `M${cx} ${cy - 6}l6 6l-6 6l-6 -6z`, class: `paid ${paid.fate}` });
    drawn.append(titled(diamond, `${clock(paid.time, 3)} ${paid.amount}, ${pageOf(paid)}, at ${paid.at}, ${paid.fate}`));
    const side = sideOf(purchases, number, x);
    const text = paid.fate === "matched" ? paid.amount : `${paid.amount} ${paid.fate}`;
    if (side) drawn.append(svg("text", { x: cx + 10 * side, y: cy + 4, "text-anchor": side > 0 ? "start" : "end" }, text));
  });
  sessions.forEach((each, number) => {
    const y = LANE.spans + rows[number] * LANE.row;
    const [start, end] = [Math.max(LANE.left, x(each.start)), x(each.end)];
    const kind = each.suspicion ? "suspicious" : each.closes ? "open" : "closed";
    const bar = svg("rect", { x: start - 6, y, width: end - start + 12, height: LANE.bar, rx: 6, class: `span ${kind}` });
    if (each.closes) {
      const middle = y + LANE.bar / 2;
      drawn.append(svg("line", { x1: end + 6, x2: x(each.closes), y1: middle, y2: middle, class: "tail" }));
      drawn.append(svg("line", { x1: x(each.closes), x2: x(each.closes), y1: y, y2: y + LANE.bar, class: "tail end" }));
    }
    drawn.append(titled(bar, `${each.id}, ${each.closes ? `closes when the watermark passes ${clock(each.closes)}` : "closed"}`));
    const amount = each.amount === "0" ? "" : ` · amount ${each.amount}`;
    const label = `${each.id.slice(0, 6)}… · ${many(each.events, "event")}${amount}`;
    drawn.append(svg("text", { x: Math.min(start - 5, width - LANE.label), y: y + LANE.bar + 13, class: "label" }, label));
  });
  if (watermark !== null && watermark >= from && watermark <= to) {
    drawn.append(svg("line", { x1: x(watermark), x2: x(watermark), y1: 24, y2: height - 4, class: "watermark" }));
    drawn.append(svg("text", { x: x(watermark) - 5, y: 72, class: "watermark", "text-anchor": "end" }, "watermark"));
  }
  return drawn;
}
