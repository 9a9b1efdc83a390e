"use strict";
// Shows the job's updates, about one per second. Data from Kafka is inserted as text, never as HTML.

const at = (id) => document.getElementById(id);
let stream = null;
let again = null;

function put(id, text) {
  const place = at(id);
  if (place.textContent !== text) place.textContent = text;
}

function make(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// --- formatting ---

function clock(seconds, digits = 0) {
  if (seconds === null || seconds === undefined) return "–";
  const time = new Date(seconds * 1000);
  if (isNaN(time)) return "–";
  const text = time.toISOString().slice(11, digits ? 20 + digits : 19).replace("Z", "");
  return Math.abs(Date.now() / 1000 - seconds) < 43200 ? text : `${time.toISOString().slice(0, 10)} ${text}`;
}

function span(seconds) {
  if (seconds < 0) return `${span(-seconds)} ahead`;
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size).toLocaleString("en")} ${unit}`;
  }
  return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
}

function many(count, thing) {
  return `${count.toLocaleString("en")} ${thing}${count === 1 ? "" : "s"}`;
}

function number(count) {
  return count === null ? "–" : count.toLocaleString("en");
}

function speed(rate) {
  if (rate === null) return "–";
  return `${rate < 10 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en")}/s`;
}

// --- at a glance ---

function glance(picture) {
  const pill = at("state");
  put("state", picture.state);
  pill.className = `pill ${{ live: "live", "Kafka is away": "away" }[picture.state] || "busy"}`;
  put("state-why", picture.state_why);
  const part = picture.processes > 1
    ? `process ${picture.process} of ${picture.processes} (numbers start at 0): shows users, sessions, counts and lists of its `
      + `${many(picture.shards.length, "shard")} of ${picture.all_shards} (${picture.shards.join(", ")})`
    : `one process, ${many(picture.shards.length, "shard")}`;
  put("process", part);
  put("watermark", clock(picture.watermark));
  put("watermark-lag", picture.watermark === null ? "not known yet" : `${span(picture.now - picture.watermark)} behind the clock`);
  put("open", number(picture.sessions_open));
  put("sessions", picture.sessions.map((each) => `${speed(each.a_second)} ${each.name}`).join(", "));
  total("in", picture.read);
  total("out", picture.written);
  put("snapshot", picture.snapshot === null ? "–" : `${span(picture.now - picture.snapshot)} ago`);
  put("waits", picture.waits);
  put("doubts", picture.doubts.join(". "));
  at("doubts").hidden = !picture.doubts.length;
  at("waits").className = picture.holding.length ? "waits held" : "waits";
}

function total(id, rates) {
  const known = rates.every((each) => each.a_second !== null);
  put(id, known ? speed(rates.reduce((sum, each) => sum + each.a_second, 0)) : "–");
  put(`${id}-topics`, rates.map((each) => `${number(each.total)} ${each.name}`).join(", "));
}

// --- partitions ---

function partitions(picture) {
  const rows = [];
  for (const each of picture.partitions) {
    const row = make("tr", undefined, each.holds ? "holds" : "");
    row.append(make("td", each.source), make("td", each.state, "quiet"));
    row.append(make("td", number(each.offset), "n"), make("td", number(each.end), "n wide"));
    row.append(make("td", number(each.to_read), "n"), make("td", clock(each.mark), "n wide"));
    row.append(make("td", clock(each.reached), "n wide"));
    row.append(make("td", each.reached === null ? "–" : span(picture.now - each.reached), "n"));
    rows.push(row);
    if (each.why) {
      const cell = make("td", `The watermark waits for this partition: it ${each.why}.`, "why");
      cell.colSpan = 8;
      const more = make("tr", undefined, "holds");
      more.append(cell);
      rows.push(more);
    }
  }
  at("partitions").tBodies[0].replaceChildren(...rows);
  put("more", picture.more_partitions ? `and ${many(picture.more_partitions, "more partition")} with fewer rows left to read` : "");
}

// --- one user ---

function chip(user) {
  const made = make("button", user, "link");
  made.type = "button";
  made.addEventListener("click", () => follow(user));
  return made;
}

function users(picture) {
  const place = at("users");
  const names = picture.users;
  if (place.dataset.names === names.join()) return;
  place.dataset.names = names.join();
  place.replaceChildren(...(names.length ? [make("span", "new sessions:", "quiet")] : []), ...names.map(chip));
}

function followed(news) {
  const { picture, followed: user } = news;
  if (!user) return;
  at("followed").hidden = false;
  const { lane } = user;
  const nothing = !lane.hits.length && !lane.purchases.length;
  const elsewhere = `User ${user.user} is in shard ${user.shard}, which belongs to another process of this job. Look on its page.`;
  const none = `User ${user.user} is in shard ${user.shard}. The user has no open session, and no row has arrived since you opened this page.`;
  put("lane-note", !user.here ? elsewhere : nothing ? none : `User ${user.user}, in shard ${user.shard}`);
  at("lane").replaceChildren(...(nothing ? [] : [drawLane(lane, picture.watermark, at("lane").clientWidth)]));
  at("key").hidden = at("spans").hidden = nothing;
  const rows = lane.sessions.map((each) => {
    const row = make("tr");
    const fate = each.closes ? `open, closes when the watermark passes ${clock(each.closes)}` : each.suspicion ? `suspicious: ${each.suspicion}` : "closed";
    row.append(make("td", each.id, "id"), make("td", clock(each.start)), make("td", clock(each.end)));
    row.append(make("td", number(each.events), "n"), make("td", each.amount, "n"), make("td", fate));
    return row;
  });
  at("spans").tBodies[0].replaceChildren(...rows.reverse());
}

// --- the last rows of each kind ---

function list(id, kept) {
  const rows = kept.map((each) => {
    const row = make("li");
    const place = [each.time === null || each.time === undefined ? "" : clock(each.time), each.where].filter(Boolean).join("  ");
    row.append(make("span", place, "quiet at"), make("span", each.reason, "reason"));
    if (each.user) row.append(" ", chip(each.user));
    row.append(make("span", each.text, "text id"));
    return row;
  });
  at(id).replaceChildren(...(rows.length ? rows : [make("li", "none yet", "none")]));
}

// --- the stream ---

function show(news) {
  glance(news.picture);
  partitions(news.picture);
  users(news.picture);
  followed(news);
  for (const [id, kept] of Object.entries(news.lists || {})) list(id, kept);
}

function lost() {
  put("state", "not connected");
  at("state").className = "pill away";
  put("state-why", "the job does not answer; this is its last known state");
}

function connect() {
  if (stream) stream.close();
  clearTimeout(again);
  const user = new URLSearchParams(location.search).get("user");
  stream = new EventSource(user ? `events?user=${encodeURIComponent(user)}` : "events");
  stream.onmessage = (message) => show(JSON.parse(message.data));
  stream.onerror = () => {
    lost();
    if (stream.readyState === EventSource.CLOSED) again = setTimeout(connect, 3000); // refused: the browser does not retry by itself
  };
}

function follow(user) {
  at("user").value = user;
  at("followed").hidden = true;
  history.pushState(null, "", user ? `?user=${encodeURIComponent(user)}` : "./");
  connect();
}

at("choose").addEventListener("submit", (event) => {
  event.preventDefault();
  follow(at("user").value.trim());
});

addEventListener("popstate", () => {
  at("user").value = new URLSearchParams(location.search).get("user") || "";
  at("followed").hidden = true;
  connect();
});

// a hidden tab closes its stream
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream.close();
  else connect();
});

at("user").value = new URLSearchParams(location.search).get("user") || "";
connect();
