// The run: rows, what they say, and where on the axis of time they stand.

const data = JSON.parse(document.getElementById("data").textContent);
const { rows, hosts, strings, arrows, lost } = data;

// Cells of a row, and its kinds; see `Table::row` in report.rs.
const HOST = 0, AT = 1, KIND = 2, CONNECTION = 3, END = 4, OFFSET = 5, REST = 6, BYTES = 6, OWN = 7;
const CONNECTED = 0, REFUSED = 1, ACCEPTED = 2, SENT = 3, RECEIVED = 4, ENDED = 5, DROPPED = 6, DREW = 7, SAID = 8, HISTORY = 9;
const INDEX = 3, CLASS = 4, USER = 5, DEVICE = 6, WORDS = 7, JSON_TEXT = 8, CONVERSATIONS = 9, OTHER = 10;
const INVOKED = 0, OK = 1, FAILED = 2, UNKNOWN = 3, ENTRY = 4, PRESENCE = 5, MOVES = 6, FINAL = 7, FAULT = 8, ALARM = 9;

const decoder = new TextDecoder();

// Bytes, given as a character each, as text.
function decoded(bytes) {
  if (!/[\x80-\xff]/.test(bytes)) return bytes;
  return decoder.decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
}

// What cannot be seen is written as an escape.
function visible(text) {
  return text.replace(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffd]/g, (c) => {
    if (c === "\r") return "\\r";
    if (c === "\t") return "\\t";
    return "\\x" + c.charCodeAt(0).toString(16).padStart(2, "0");
  });
}

const string = (place) => decoded(strings[place]);

// Arrows by the row that they leave from and the one that they end in.
const leaving = new Map(), arriving = new Map(), losing = new Map();
const push = (map, key, value) => map.has(key) ? map.get(key).push(value) : map.set(key, [value]);
arrows.forEach(([from, to], at) => { push(leaving, from, at); push(arriving, to, at); });
lost.forEach(([from], at) => losing.set(from, at));

// The bytes that a row sent or received.
function bytesOf(at) {
  const row = rows[at];
  if (row[KIND] === SENT) return strings[row[REST]];
  if (row[KIND] !== RECEIVED) return "";
  if (row[OWN] >= 0) return strings[row[OWN]];
  const [from, to] = [row[OFFSET], row[OFFSET] + row[BYTES]];
  return (arriving.get(at) || []).map((arrow) => {
    const sent = rows[arrows[arrow][0]];
    return strings[sent[REST]].slice(Math.max(0, from - sent[OFFSET]), to - sent[OFFSET]);
  }).join("");
}

// All that a row says, for the search.
function textOf(at) {
  const row = rows[at];
  switch (row[KIND]) {
    case SENT: case RECEIVED: return decoded(bytesOf(at));
    case REFUSED: return "could not connect to " + string(row[CONNECTION]);
    case DREW: case SAID: return string(row[CONNECTION]);
    case ENDED: return string(row[OFFSET]);
    case HISTORY: return string(row[WORDS]) + "\n" + string(row[JSON_TEXT]);
    default: return "";
  }
}

// Who sends and who receives, of a row with a connection.
function direction(row) {
  const ends = data.connections[row[CONNECTION]];
  return ends ? [ends[row[END]], ends[1 - row[END]]] : ["?", "?"];
}

const hasConnection = (row) => row[KIND] !== REFUSED && row[KIND] < DREW;
const hostOf = (address) => address.slice(0, address.lastIndexOf(":"));

const PREFIXES = ["connected", "refused", "accepted", "sent", "received", "end", "dropped", "drew", "", ""];

// A row in a line.
function title(at, most = 160) {
  const row = rows[at], name = PREFIXES[row[KIND]];
  const cut = (text) => text.length > most ? text.slice(0, most) + "…" : text;
  switch (row[KIND]) {
    case HISTORY: return cut(visible(string(row[WORDS])));
    case SAID: return cut(visible(string(row[CONNECTION])));
    case DREW: return `drew ${string(row[CONNECTION])}`;
    case REFUSED: return visible(textOf(at));
    case SENT: case RECEIVED: {
      const [from, to] = direction(row);
      return `${name} ${from} → ${to}: ${cut(visible(textOf(at)).trimEnd())}`;
    }
    case ENDED: { const [from, to] = direction(row); return `end of ${from} → ${to}: ${visible(textOf(at))}`; }
    case ACCEPTED: { const [own, other] = direction(row); return `${own} accepted ${other}`; }
    default: { const [own, other] = direction(row); return `${own} ${name} ${row[KIND] === DROPPED ? "its end to" : "to"} ${other}`; }
  }
}

// A row of the history in a few words: on a host's line it is plain who is meant.
const brief = (at) => visible(string(rows[at][WORDS])).replace(/^(.+?) \(\d+\) on device \d+: /, "$1: ");

const seconds = (micros, digits = 6) => (micros / 1e6).toFixed(digits) + " s";

// Where rows stand. In a step of the simulation the hosts run one after the other, so clocks go back a little from one host to the next;
// and many things happen at the same time. The order of the rows is what led to what. So no row stands before an earlier one, and those
// that happen at once are spread over the step, in their order.
const position = new Float64Array(rows.length);
{
  let now = 0;
  for (let from = 0; from < rows.length;) {
    now = Math.max(now, rows[from][AT]);
    let to = from + 1;
    while (to < rows.length && rows[to][AT] <= now) to++;
    const room = Math.min(data.tick, to < rows.length ? rows[to][AT] - now : data.tick) * 0.95;
    for (let at = from; at < to; at++) position[at] = now + room * (at - from) / (to - from);
    from = to;
  }
}
const last = Math.max(data.simulated, rows.length ? position[rows.length - 1] : 0, 1);

// The first place in ascending numbers that is not below a number.
function atLeast(numbers, number) {
  let [from, to] = [0, numbers.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    if (numbers[middle] < number) from = middle + 1; else to = middle;
  }
  return from;
}

// Arrows by where they begin, and how far down any up to each of them reaches: so those that cross a part of the run are found quickly.
const byStart = Uint32Array.from(arrows, (_, at) => at).sort((a, b) => arrows[a][0] - arrows[b][0] || a - b);
const starts = Float64Array.from(byStart, (at) => position[arrows[at][0]]);
const reach = new Float64Array(arrows.length);
byStart.forEach((arrow, at) => { reach[at] = Math.max(at ? reach[at - 1] : 0, position[arrows[arrow][1]]); });

// The proofs of the anomalies, by row: the numbers of anomaly and step.
const proofs = new Map();
data.anomalies.forEach((anomaly, at) => anomaly.rows.forEach((row, step) => push(proofs, row, `${at + 1}.${step + 1}`)));
const proofRows = [...proofs.keys()].sort((a, b) => a - b);
const related = new Uint8Array(rows.length);
data.related.forEach((row) => { related[row] = 1; });

