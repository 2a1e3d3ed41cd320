// The diagram: hosts are lines from top to bottom, messages go from one to the other.

const canvas = byId("diagram"), overview = byId("overview"), stage = byId("stage"), tip = byId("tip");
const paper = canvas.getContext("2d"), small = overview.getContext("2d");

const HEADER = 30, GUTTER = 78, LANE_MIN = 62, LABEL = 13;
// Pixels for a microsecond, at most; beyond, there is nothing more to see.
const SCALE_MAX = 2;
// With more arrows than this in sight they are only lines.
const HEADS_MAX = 1500;

// `from` is the time at the top, `scale` pixels for a microsecond, `left` how far it is scrolled sideways.
const view = { from: 0, scale: 1, left: 0 };
let width = 0, height = 0, content = 0;
let selected = -1;
let selectionChanged = () => {};
let colours = {};
// Lanes that are shown, by host.
let lanes = new Map();
// What was drawn, for the pointer.
let points = [], segments = [];

function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["back", "panel", "text", "soft", "line", "lane", "chat", "store", "redis", "lost", "gone", "bad", "badback", "ok", "warn", "entry", "fault"])
    colours[name] = style.getPropertyValue("--" + name).trim();
}

const y = (time) => HEADER + (time - view.from) * view.scale;
const timeAt = (pixel) => view.from + (pixel - HEADER) / view.scale;
const scaleMin = () => (height - HEADER - 24) / last;

// Client hosts and the world have the room for words at their right.
function layout() {
  const weights = hosts.map((host, at) => !hostShown[at] ? 0 : host.startsWith("clients") ? 2.2 : at === 0 ? 1.4 : 1);
  const sum = weights.reduce((a, b) => a + b, 0) || 1;
  const unit = Math.max(LANE_MIN, (width - GUTTER - 6) / sum);
  let left = GUTTER;
  lanes = new Map();
  weights.forEach((weight, host) => {
    if (!weight) return;
    const room = weight * unit, wordy = weight > 1;
    lanes.set(host, { left, room, x: left + (wordy ? 26 : room / 2), words: wordy ? room - 42 : room - 16 });
    left += room;
  });
  content = left;
}

const x = (host) => { const lane = lanes.get(host); return lane ? lane.x - view.left : null; };

function clampView() {
  view.scale = Math.min(SCALE_MAX, Math.max(scaleMin(), view.scale));
  const room = (height - HEADER) / view.scale;
  view.from = Math.max(-20 / view.scale, Math.min(view.from, last + 60 / view.scale - room));
  if (room >= last) view.from = -6 / view.scale;
  view.left = Math.max(0, Math.min(view.left, content - width));
}

let pending = false;
function redraw() {
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => { pending = false; draw(); });
}

function resize() {
  const ratio = window.devicePixelRatio || 1;
  width = stage.clientWidth; height = stage.clientHeight;
  for (const [of, wide] of [[canvas, width], [overview, 64]]) {
    of.width = Math.round(wide * ratio); of.height = Math.round(height * ratio);
    of.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  }
  overview.style.height = height + "px";
  layout(); clampView(); redraw();
}

// Labels that are in place: none is put over another.
class Places {
  constructor() { this.lines = new Map(); }
  take(left, top, wide, high) {
    const [first, lastLine] = [Math.floor(top / 20), Math.floor((top + high) / 20)];
    for (let line = first; line <= lastLine; line++)
      for (const [l, t, w, h] of this.lines.get(line) || [])
        if (left < l + w && l < left + wide && top < t + h && t < top + high) return false;
    for (let line = first; line <= lastLine; line++) push(this.lines, line, [left, top, wide, high]);
    return true;
  }
}

// A text that is as long as there is room for.
const widths = new Map();
function fitted(text, room) {
  const measure = (of) => {
    if (!widths.has(of)) { if (widths.size > 20000) widths.clear(); widths.set(of, paper.measureText(of).width); }
    return widths.get(of);
  };
  text = text.slice(0, 200);
  if (measure(text) <= room) return text;
  let [from, to] = [0, text.length];
  while (from < to) {
    const middle = (from + to + 1) >> 1;
    if (measure(text.slice(0, middle) + "…") <= room) from = middle; else to = middle - 1;
  }
  return from > 2 ? text.slice(0, from) + "…" : "";
}

function label(places, text, left, middle, room, colour, back) {
  const fits = fitted(text, room);
  if (!fits) return false;
  const wide = paper.measureText(fits).width + 6;
  if (!places.take(left, middle - LABEL / 2, wide, LABEL)) return false;
  paper.globalAlpha = 0.86; paper.fillStyle = back || colours.back;
  paper.fillRect(left, middle - LABEL / 2, wide, LABEL);
  paper.globalAlpha = 1; paper.fillStyle = colour;
  paper.fillText(fits, left + 3, middle + 0.5);
  return true;
}

function draw() {
  paper.clearRect(0, 0, width, height);
  paper.fillStyle = colours.back; paper.fillRect(0, 0, width, height);
  paper.font = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  paper.textBaseline = "middle";
  points = []; segments = [];
  const places = new Places();
  const [top, bottom] = [timeAt(HEADER), timeAt(height)];
  drawTime(top, bottom);
  paper.save();
  paper.beginPath(); paper.rect(GUTTER, HEADER, width - GUTTER, height - HEADER); paper.clip();
  drawFaults(top, bottom);
  drawLanes();
  const inSight = drawArrows(top, bottom);
  drawRows(top, bottom, places);
  labelFaults(top, bottom, places);
  labelArrows(inSight, places);
  drawSelected();
  paper.restore();
  drawHeader();
  drawOverview();
}

// Lines across at round times.
function drawTime(top, bottom) {
  const least = 70 / view.scale;
  let step = 10 ** Math.floor(Math.log10(least));
  step *= [1, 2, 5, 10].find((times) => step * times >= least);
  const digits = Math.max(0, Math.min(6, 6 - Math.floor(Math.log10(step))));
  paper.textAlign = "right";
  for (let time = Math.max(0, Math.ceil(top / step) * step); time <= Math.min(bottom, last); time += step) {
    const at = Math.round(y(time)) + 0.5;
    paper.strokeStyle = colours.line; paper.lineWidth = 1; paper.globalAlpha = 0.6;
    paper.beginPath(); paper.moveTo(GUTTER - 6, at); paper.lineTo(width, at); paper.stroke();
    paper.globalAlpha = 1; paper.fillStyle = colours.soft;
    paper.fillText(seconds(time, digits), GUTTER - 10, Math.max(at, HEADER + 8));
  }
  paper.textAlign = "left";
}

const isDown = (fault) => fault.kind === "exit" || fault.kind === "power_loss";

// Bands over the hosts that a fault is about; of a link, over both, joined where it begins and ends.
function drawFaults(top, bottom) {
  for (const fault of data.faults) {
    if (fault.to < top || fault.from > bottom) continue;
    const [begin, end] = [y(fault.from), Math.max(y(fault.to), y(fault.from) + 2)];
    const sides = fault.hosts.map((host) => lanes.get(hosts.indexOf(host))).filter(Boolean);
    const colour = isDown(fault) ? colours.lost : colours.fault;
    for (const lane of sides) {
      const [left, wide] = [lane.x - view.left - 13, 26];
      paper.globalAlpha = 0.2; paper.fillStyle = colour;
      paper.fillRect(left, begin, wide, end - begin);
      paper.globalAlpha = 0.75; paper.strokeStyle = colour; paper.lineWidth = 1;
      paper.strokeRect(left + 0.5, Math.round(begin) + 0.5, wide - 1, Math.round(end - begin));
    }
    if (sides.length === 2) {
      const [a, b] = sides.map((lane) => lane.x - view.left);
      paper.setLineDash([5, 4]);
      paper.beginPath();
      for (const at of [begin, end]) { paper.moveTo(a, Math.round(at) + 0.5); paper.lineTo(b, Math.round(at) + 0.5); }
      paper.stroke();
      paper.setLineDash([]);
    }
    paper.globalAlpha = 1;
  }
}

function labelFaults(top, bottom, places) {
  for (const fault of data.faults) {
    const [begin, end] = [y(fault.from), y(fault.to)];
    if (fault.to < top || fault.from > bottom || end - begin < LABEL) continue;
    const lane = lanes.get(hosts.indexOf(fault.hosts[0]));
    if (!lane) continue;
    // In sight as long as its band is.
    const at = Math.min(Math.max(begin, HEADER) + LABEL, Math.max(end - LABEL / 2, HEADER + LABEL / 2));
    for (let line = 0; line < 4; line++)
      if (label(places, fault.name, lane.x - view.left + 15, at + line * (LABEL + 1), Math.max(lane.words, 150), isDown(fault) ? colours.lost : colours.warn)) break;
  }
}

function drawLanes() {
  const bottom = Math.min(height, y(last));
  for (const [host, lane] of lanes) {
    paper.strokeStyle = colours.lane; paper.lineWidth = 1.5;
    const at = lane.x - view.left;
    const downs = data.faults.filter((fault) => isDown(fault) && fault.hosts.includes(hosts[host]));
    let from = HEADER;
    paper.beginPath();
    // A host that is gone has no line.
    for (const fault of downs.sort((a, b) => a.from - b.from)) {
      const [begin, end] = [y(fault.from), y(fault.to)];
      if (end < HEADER || begin > height) continue;
      if (begin > from) { paper.moveTo(at, from); paper.lineTo(at, begin); }
      from = Math.max(from, end);
    }
    if (bottom > from) { paper.moveTo(at, from); paper.lineTo(at, bottom); }
    paper.stroke();
    for (const fault of downs) cross(at, y(fault.from), 7, colours.lost, 3);
  }
}

function cross(atX, atY, size, colour, thick) {
  paper.strokeStyle = colour; paper.lineWidth = thick;
  paper.beginPath();
  paper.moveTo(atX - size, atY - size); paper.lineTo(atX + size, atY + size);
  paper.moveTo(atX - size, atY + size); paper.lineTo(atX + size, atY - size);
  paper.stroke();
}

function arrowColour(from, to) {
  const pair = [hosts[from], hosts[to]];
  return pair.includes("store") ? colours.store : pair.includes("redis") ? colours.redis : colours.chat;
}

function head(x1, y1, x2, y2, size) {
  const angle = Math.atan2(y2 - y1, x2 - x1);
  paper.beginPath();
  paper.moveTo(x2, y2);
  paper.lineTo(x2 - size * Math.cos(angle - 0.4), y2 - size * Math.sin(angle - 0.4));
  paper.lineTo(x2 - size * Math.cos(angle + 0.4), y2 - size * Math.sin(angle + 0.4));
  paper.fill();
}

// Messages that cross the part in sight, those in question above all others. Returns what was drawn.
function drawArrows(top, bottom) {
  const usual = new Map(), special = [], seen = new Set();
  const end = atLeast(starts, bottom);
  let inSight = 0;
  for (let at = atLeast(reach, top); at < end; at++) {
    const arrow = byStart[at], [from, to] = arrows[arrow];
    if (!shown[from] && !shown[to]) continue;
    const [a, b] = [rows[from][HOST], rows[to][HOST]];
    const [x1, x2] = [x(a), x(b)];
    if (position[to] < top || x1 === null || x2 === null) continue;
    const [y1, y2] = [y(position[from]), y(position[to])];
    const item = { x1, y1, x2, y2, from, to, arrow };
    if (related[from] || related[to] || from === selected || to === selected) { special.push(item); segments.push(item); continue; }
    // Many that fall upon each other are one line.
    const key = `${a},${b},${Math.round(y1)},${Math.round(y2)}`;
    if (seen.has(key)) continue;
    seen.add(key);
    inSight++;
    segments.push(item);
    push(usual, arrowColour(a, b), item);
  }
  const heads = inSight < HEADS_MAX;
  paper.globalAlpha = heads ? (special.length ? 0.5 : 0.8) : 0.28;
  for (const [colour, items] of usual) {
    paper.strokeStyle = paper.fillStyle = colour; paper.lineWidth = 1;
    paper.beginPath();
    for (const { x1, y1, x2, y2 } of items) { paper.moveTo(x1, y1); paper.lineTo(x2, y2); }
    paper.stroke();
    if (heads) for (const { x1, y1, x2, y2 } of items) head(x1, y1, x2, y2, 7);
  }
  paper.globalAlpha = 1;
  for (const { x1, y1, x2, y2, from, to } of special) {
    paper.strokeStyle = paper.fillStyle = from === selected || to === selected ? colours.text : colours.bad;
    paper.lineWidth = 2;
    paper.beginPath(); paper.moveTo(x1, y1); paper.lineTo(x2, y2); paper.stroke();
    head(x1, y1, x2, y2, 9);
  }
  drawLost(top, bottom);
  return segments;
}

// Messages that never arrived end on their way.
function drawLost(top, bottom) {
  const first = atLeast(lostAt, top - 40 / view.scale);
  let previous = "";
  for (let at = first; at < lost.length && lostAt[at] <= bottom; at++) {
    const [from, , left] = lost[at];
    if (!shown[from]) continue;
    const target = hosts.indexOf(hostOf(direction(rows[from])[1]));
    const [x1, far] = [x(rows[from][HOST]), x(target)];
    if (x1 === null) continue;
    const y1 = y(position[from]), aim = far === null ? x1 + 60 : far;
    const x2 = x1 + (aim - x1) * 0.62, y2 = y1 + Math.min(14, Math.abs(x2 - x1) / 4);
    const key = `${x1},${x2},${Math.round(y1)}`;
    if (key === previous && !related[from]) continue;
    previous = key;
    // What nobody waited for any more is no mystery.
    const colour = related[from] || from === selected ? colours.bad : left >= 0 ? colours.gone : colours.lost;
    paper.strokeStyle = colour; paper.lineWidth = related[from] ? 2 : 1.2;
    paper.setLineDash([4, 3]);
    paper.beginPath(); paper.moveTo(x1, y1); paper.lineTo(x2, y2); paper.stroke();
    paper.setLineDash([]);
    cross(x2, y2, 4, colour, 2);
    segments.push({ x1, y1, x2, y2, from, to: -1, arrow: -1 });
  }
}
const lostAt = Float64Array.from(lost, ([from]) => position[from]);

// Short words for what hosts say of their lives.
const LIVES = [["starts", "▲"], ["listens", "△"], ["drains", "▽"], ["drained", "▼"]];

function mark(row, at, atX, atY) {
  const dot = (colour, size) => { paper.fillStyle = colour; paper.beginPath(); paper.arc(atX, atY, size, 0, 7); paper.fill(); };
  const ring = (colour, size) => { paper.strokeStyle = colour; paper.fillStyle = colours.back; paper.lineWidth = 1.5; paper.beginPath(); paper.arc(atX, atY, size, 0, 7); paper.fill(); paper.stroke(); };
  const corners = (colour, ...path) => {
    paper.fillStyle = colour; paper.beginPath();
    path.forEach(([dx, dy], nth) => nth ? paper.lineTo(atX + dx, atY + dy) : paper.moveTo(atX + dx, atY + dy));
    paper.fill();
  };
  switch (row[KIND]) {
    case SENT: case RECEIVED: return dot(colours.lane, 1.5);
    case DREW: return dot(colours.gone, 1.5);
    case CONNECTED: case ACCEPTED: return ring(colours.soft, 2.5);
    case REFUSED: return cross(atX, atY, 3, colours.warn, 1.5);
    case ENDED: case DROPPED: return corners(colours.gone, [-4, -1.5], [4, -1.5], [4, 1.5], [-4, 1.5]);
    case SAID: {
      const life = LIVES.find(([word]) => string(row[CONNECTION]).startsWith(word));
      if (!life) return dot(colours.fault, 3);
      const up = life[1] === "▲" || life[1] === "△";
      return up ? corners(colours.ok, [-6, 4], [6, 4], [0, -6]) : corners(colours.warn, [-6, -4], [6, -4], [0, 6]);
    }
  }
  switch (row[CLASS]) {
    case INVOKED: return corners(colours.chat, [-4, -4.5], [5, 0], [-4, 4.5]);
    case OK: return dot(colours.ok, 4);
    case FAILED: return dot(colours.warn, 4);
    case UNKNOWN: return ring(colours.warn, 4);
    case ENTRY: return corners(colours.entry, [-4, -4], [4, -4], [4, 4], [-4, 4]);
    case ALARM: return cross(atX, atY, 4, colours.lost, 2.5);
    case FAULT: return dot(colours.fault, 4);
    case FINAL: return corners(colours.soft, [-4, -4], [4, -4], [4, 4], [-4, 4]);
    default: return corners(colours.soft, [0, -4], [4, 0], [0, 4], [-4, 0]);
  }
}

// Events on the hosts' lines. Labels go first to what matters most.
function drawRows(top, bottom, places) {
  const [first, end] = [atLeast(position, top - 8 / view.scale), atLeast(position, bottom)];
  const seen = new Set(), labels = [[], [], [], []], proven = [];
  for (let at = first; at < end; at++) {
    const row = rows[at], proof = proofs.has(at);
    if (!shown[at] && !proof) continue;
    const atX = x(row[HOST]);
    if (atX === null) continue;
    const atY = y(position[at]);
    const key = proof || related[at] ? at : `${row[HOST]},${row[KIND]},${row[KIND] === HISTORY ? row[CLASS] : 0},${Math.round(atY)}`;
    if (seen.has(key)) continue;
    seen.add(key);
    points.push({ x: atX, y: atY, row: at });
    if (proof) { proven.push([at, atX, atY]); continue; }
    mark(row, at, atX, atY);
    if (row[KIND] === HISTORY) labels[related[at] ? 1 : [PRESENCE, MOVES, FINAL].includes(row[CLASS]) ? 3 : 2].push([at, atX, atY]);
    else if (row[KIND] === SAID && row[HOST] !== 0) labels[2].push([at, atX, atY]);
    else if (row[KIND] === REFUSED) labels[3].push([at, atX, atY]);
  }
  for (const [at, atX, atY] of proven) {
    paper.strokeStyle = colours.bad; paper.lineWidth = 1; paper.setLineDash([2, 4]);
    paper.beginPath(); paper.moveTo(GUTTER, atY); paper.lineTo(width, atY); paper.stroke();
    paper.setLineDash([]);
  }
  // Proofs stand on each other's toes only if there is no other way: their labels may move down a little.
  for (const [at, atX, atY] of proven) {
    paper.fillStyle = colours.bad;
    paper.beginPath(); paper.arc(atX, atY, 6.5, 0, 7); paper.fill();
    paper.fillStyle = colours.back;
    paper.beginPath(); paper.arc(atX, atY, 2.5, 0, 7); paper.fill();
    const lane = lanes.get(rows[at][HOST]);
    const text = `${proofs.get(at)[0]}${proofs.get(at).length > 1 ? "…" : ""}  ${brief(at)}`;
    paper.font = paper.font.replace(/^(bold )?/, "bold "); widths.clear();
    const room = Math.min(Math.max(lane.words, 240), width - atX - 16);
    for (const down of [0, 15, 30, 45, -15, -30])
      if (label(places, text, atX + 10, atY + down, room, colours.bad, colours.badback)) break;
    paper.font = paper.font.replace("bold ", ""); widths.clear();
  }
  labels.slice(1).forEach((items) => items.forEach(([at, atX, atY]) => {
    const row = rows[at], lane = lanes.get(row[HOST]);
    const text = row[KIND] === HISTORY ? brief(at) : title(at);
    const colour = related[at] ? colours.bad : row[KIND] === HISTORY && row[CLASS] === ENTRY ? colours.entry : colours.text;
    label(places, text, atX + 9, atY, lane.words, colour);
  }));
}

// What messages say, where there is room along them.
function labelArrows(items, places) {
  if (items.length > HEADS_MAX) return;
  const important = ({ from, to }) => related[from] || (to >= 0 && related[to]) || from === selected || to === selected;
  for (const wanted of [true, false])
    for (const item of items) {
      if (Boolean(important(item)) !== wanted) continue;
      const { x1, y1, x2, y2, from } = item;
      const room = Math.min(Math.abs(x2 - x1) - 26, 260);
      if (room < 40) continue;
      // Near to the sender, where arrows are furthest apart.
      const text = visible(decoded(bytesOf(from)).replace(/^\0\0[^]{2}/, "").replace(/[\x00-\x20]+/g, " ")).trim();
      const fits = fitted(text, room), wide = paper.measureText(fits).width + 6;
      const share = (wide / 2 + 14) / Math.abs(x2 - x1);
      const [middle, line] = [x1 + (x2 - x1) * share, y1 + (y2 - y1) * share];
      if (line > HEADER && line < height) label(places, text, middle - wide / 2, line, room, wanted ? colours.bad : colours.soft);
    }
}

function drawSelected() {
  if (selected < 0) return;
  const atX = x(rows[selected][HOST]);
  if (atX === null) return;
  paper.strokeStyle = colours.text; paper.lineWidth = 2;
  paper.beginPath(); paper.arc(atX, y(position[selected]), 10, 0, 7); paper.stroke();
}

function drawHeader() {
  paper.fillStyle = colours.panel; paper.fillRect(0, 0, width, HEADER);
  paper.strokeStyle = colours.line; paper.lineWidth = 1;
  paper.beginPath(); paper.moveTo(0, HEADER - 0.5); paper.lineTo(width, HEADER - 0.5); paper.stroke();
  paper.save();
  paper.beginPath(); paper.rect(GUTTER, 0, width - GUTTER, HEADER); paper.clip();
  paper.textAlign = "center"; paper.fillStyle = colours.text;
  paper.font = paper.font.replace("11px", "bold 12.5px");
  for (const [host, lane] of lanes) {
    const half = paper.measureText(hosts[host]).width / 2;
    paper.fillText(hosts[host], Math.max(lane.x, lane.left + half + 2) - view.left, HEADER / 2);
  }
  paper.font = paper.font.replace("bold 12.5px", "11px");
  paper.textAlign = "left";
  paper.restore();
}

// The whole run at the side: how much happens when, faults, proofs, and the part in sight.
const density = new Float64Array(200);
for (let at = 0; at < rows.length; at++) density[Math.min(199, Math.floor(position[at] / last * 200))]++;
const densest = density.reduce((a, b) => Math.max(a, b), 1);

function drawOverview() {
  const at = (time) => 4 + time / last * (height - 8);
  small.fillStyle = colours.panel; small.fillRect(0, 0, 64, height);
  small.fillStyle = colours.lane;
  density.forEach((count, nth) => small.fillRect(0, at(nth / 200 * last), Math.sqrt(count / densest) * 46, Math.max(1, (height - 8) / 200 - 0.5)));
  small.fillStyle = colours.fault;
  data.faults.forEach((fault, nth) => small.fillRect(48 + nth % 4 * 4, at(fault.from), 3, Math.max(2, at(fault.to) - at(fault.from))));
  small.fillStyle = colours.bad;
  for (const row of proofRows) small.fillRect(0, at(position[row]) - 1, 64, 2.5);
  const [begin, end] = [at(Math.max(0, view.from)), at(Math.min(last, timeAt(height)))];
  small.globalAlpha = 0.15; small.fillStyle = colours.chat; small.fillRect(0, begin, 64, Math.max(3, end - begin));
  small.globalAlpha = 1; small.strokeStyle = colours.chat; small.lineWidth = 1.5;
  small.strokeRect(1, begin, 62, Math.max(3, end - begin));
}

