// What stands around the diagram: the head, the violations, details of an event, keys and buttons.

const number = (of) => of.toLocaleString("en");

// The head.
{
  const bad = data.outcome !== "valid";
  byId("title").append(
    `chatsim, seed ${data.seed}: `,
    element("span", { className: "verdict" + (bad ? " bad" : ""), textContent: visible(data.verdict.split("\n")[0]).slice(0, 200) }),
  );
  const topology = data.topology;
  byId("facts").textContent = [
    `${topology.nodes} nodes`, topology.redis ? "Redis" : "no Redis", topology.balancer ? "balancer" : "no balancer",
    `${topology.users} users`, `${data.faults.length} faults`, `${seconds(data.simulated, 3)} simulated`,
    `${number(data.trace_events)} events in the trace`, `${number(data.history_events)} in the history`,
    `trace ${data.hash}`,
  ].join(" · ");
  const knob = ([name, value]) => element("div", { textContent: `${name} = ${typeof value === "object" ? JSON.stringify(value) : value}` });
  byId("knobs").append(...Object.entries({ ...data.topology, ...data.knobs }).map(knob));
  byId("scenario").textContent = visible(data.scenario);
}

// A button that goes to an event.
const jumps = [];
function jump(at, prefix = "") {
  const button = element("button", { type: "button", className: "jump" },
    element("span", { className: "time", textContent: prefix + seconds(rows[at][AT], 3) }), title(at));
  button.addEventListener("click", () => goTo(at));
  return button;
}

// The violations, and the events that prove them.
if (data.outcome !== "valid") {
  const section = byId("violations");
  section.hidden = false;
  section.append(element("h2", { textContent: data.anomalies.length ? "Violations" : data.outcome }));
  if (!data.anomalies.length) section.append(element("div", { className: "violation", textContent: visible(data.verdict) }));
  data.anomalies.forEach((anomaly, at) => {
    const steps = anomaly.rows.map((row, step) => {
      const button = jump(row, `${at + 1}.${step + 1}  `);
      jumps.push([row, button]);
      return element("li", {}, button);
    });
    section.append(element("div", { className: "violation" },
      element("strong", { textContent: `${at + 1}. ${anomaly.invariant}` }),
      element("div", { className: "detail", textContent: visible(anomaly.detail) }),
      element("div", { className: "soft", textContent: "Promised: " + anomaly.promise }),
      element("ol", { className: "proofs" }, ...steps)));
  });
  byId("proof").hidden = proofRows.length === 0;
}

function showDetails() {
  for (const [row, button] of jumps) {
    button.classList.toggle("current", row === selected);
    if (row === selected) button.scrollIntoView({ block: "nearest" });
  }
  const section = byId("details");
  section.scrollTop = 0;
  section.replaceChildren(element("h2", { textContent: "Event" }));
  if (selected < 0) {
    section.append(element("p", { className: "soft", textContent: "Click on an event or a message, or press → in the diagram." }));
    return;
  }
  const at = selected, row = rows[at], list = element("dl");
  const fact = (name, value) => list.append(element("dt", { textContent: name }), element("dd", { textContent: value }));
  const linked = [];
  let text = "";
  fact("when", seconds(row[AT]));
  fact("where", hosts[row[HOST]]);
  fact("number", `${number(at)} of ${number(rows.length)}`);
  if (proofs.has(at)) fact("proves", proofs.get(at).join(", "));
  if (row[KIND] === HISTORY) {
    fact("what", visible(string(row[WORDS])));
    fact("history", `event ${row[INDEX]}`);
    if (row[OTHER] >= 0) linked.push([row[CLASS] === INVOKED ? "Its outcome" : "The request", [row[OTHER]]]);
    text = JSON.stringify(JSON.parse(string(row[JSON_TEXT])), null, 1);
  } else if (row[KIND] === SENT || row[KIND] === RECEIVED) {
    const sent = row[KIND] === SENT, [from, to] = direction(row), bytes = bytesOf(at);
    fact(sent ? "sent" : "received", `${from} → ${to}`);
    fact("connection", row[CONNECTION]);
    fact("bytes", `${number(bytes.length)} from ${number(row[OFFSET])} on`);
    const others = (sent ? leaving : arriving).get(at) || [];
    if (others.length) linked.push([sent ? "Arrived" : "Sent", others.map((arrow) => arrows[arrow][sent ? 1 : 0])]);
    if (losing.has(at)) {
      const [, count, left] = lost[losing.get(at)];
      fact("lost", `${number(count)} bytes never arrived${left >= 0 ? ": the reader had left" : ""}`);
      if (left >= 0) linked.push(["The reader left", [left]]);
    }
    text = visible(decoded(bytes));
  } else {
    fact("what", title(at, Infinity));
    if (hasConnection(row)) fact("connection", row[CONNECTION]);
  }
  section.append(list);

  const buttons = element("div", { className: "buttons" });
  const button = (name, act) => {
    const made = element("button", { type: "button", textContent: name });
    made.addEventListener("click", act);
    buttons.append(made);
  };
  const here = (other) => rows[other][HOST] === row[HOST];
  button("◂ before it here", () => step(-1, here));
  button("after it here ▸", () => step(1, here));
  const only = (id, value) => { byId(id).value = value; applyFilter(); };
  if (hasConnection(row)) button("only this connection", () => only("connection", row[CONNECTION]));
  if (row[KIND] === HISTORY && row[USER]) button("only this user", () => only("user", row[USER]));
  if (row[KIND] === HISTORY && string(row[CONVERSATIONS])) button("only this conversation", () => only("conversation", string(row[CONVERSATIONS]).split(" ")[0]));
  section.append(buttons);
  for (const [name, others] of linked) section.append(element("p", { className: "soft", textContent: name }), ...others.map((other) => jump(other)));
  if (text) section.append(element("pre", { textContent: text }));
}
selectionChanged = showDetails;

{
  const keys = [
    ["▸", "chat", "request"], ["●", "ok", "answered: ok"], ["●", "warn", "refused"], ["○", "warn", "unknown"],
    ["■", "entry", "entry shown"], ["◆", "soft", "device, presence"], ["▲", "ok", "host starts"], ["▼", "warn", "node drains"],
    ["✖", "lost", "crash; message lost"], ["×", "gone", "reader had left"], ["▮", "fault", "fault"], ["⬤", "bad", "proof"],
    ["→", "chat", "chat message"], ["→", "store", "to, from the store"], ["→", "redis", "to, from Redis"], ["→", "bad", "of the violation"],
  ];
  const key = ([sign, colour, name]) => {
    const mark = element("span", { className: "key", textContent: sign });
    mark.style.color = `var(--${colour})`;
    return element("li", {}, mark, " " + name);
  };
  const line = (text) => element("p", { textContent: text });
  byId("legend").append(element("ul", {}, ...keys.map(key)),
    line("Wheel, + and −: zoom. Drag, ↑ ↓, Shift and wheel: move. 0: all. ← →: the event before, after. n, p: the proof after, before. /: search. Esc: none."),
    line("What happens in one step of the simulation is drawn apart, in the order in which it happened; times in the panel are exact."));
}

function step(by, wanted) {
  // From the top of what is in sight, if nothing is chosen.
  const from = selected >= 0 ? selected : atLeast(position, timeAt(HEADER)) - 1;
  const next = nextShown(from, by, wanted);
  if (next >= 0) select(next);
}

function stepProof(by) {
  if (!proofRows.length) return;
  const now = selected >= 0 ? selected : -1;
  const next = by > 0 ? proofRows.find((row) => row > now) : proofRows.filter((row) => row < now).pop();
  goTo(next === undefined ? proofRows[by > 0 ? 0 : proofRows.length - 1] : next);
}

const keysOf = {
  "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), "0": () => fit(), Home: () => { view.from = 0; pan(0); },
  End: () => { view.from = last; pan(0); }, ArrowUp: () => pan(-60), ArrowDown: () => pan(60),
  PageUp: () => pan(-0.9 * (height - HEADER)), PageDown: () => pan(0.9 * (height - HEADER)), " ": () => pan(0.9 * (height - HEADER)),
  ArrowLeft: () => step(-1), ArrowRight: () => step(1), n: () => stepProof(1), p: () => stepProof(-1), Escape: () => select(-1),
};
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest && event.target.closest("input, select, button, summary, a");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") document.querySelectorAll(".menu[open]").forEach((menu) => { menu.open = false; });
  if (typing && event.key !== "Escape") return;
  if (event.key === "/") { event.preventDefault(); byId("text").focus(); return; }
  const act = keysOf[event.key];
  if (act) { event.preventDefault(); act(); }
});
byId("in").addEventListener("click", () => zoom(1.6));
byId("out").addEventListener("click", () => zoom(1 / 1.6));
byId("fit").addEventListener("click", () => fit());
byId("proof").addEventListener("click", () => stepProof(1));

// Filters.
let typed = 0;
byId("text").addEventListener("input", () => { clearTimeout(typed); typed = setTimeout(applyFilter, 150); });
byId("tools").addEventListener("change", (event) => { if (event.target !== byId("text")) applyFilter(); });
byId("tools").addEventListener("reset", () => setTimeout(applyFilter));
byId("tools").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typed); applyFilter();
  const next = nextShown(selected, 1);
  if (next >= 0) goTo(next); else if (nextShown(-1, 1) >= 0) goTo(nextShown(-1, 1));
});
filterChanged = () => { layout(); clampView(); redraw(); };

// To begin with, the proofs are in sight as far as they are near to each other, or else the whole run.
readColours();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { readColours(); redraw(); });
new ResizeObserver(resize).observe(stage);
resize();
applyFilter();
showDetails();
fit();
if (data.anomalies.length && data.anomalies[0].rows.length) {
  const times = data.anomalies[0].rows.map((row) => position[row]);
  const first = Math.min(...times), near = times.filter((time) => time < first + 40 * data.tick);
  const margin = Math.max(4 * data.tick, (Math.max(...near) - first) * 0.15);
  fit(first - margin, Math.max(...near) + margin);
}
