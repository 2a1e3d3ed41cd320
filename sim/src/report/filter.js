// What is shown of the run.

const byId = (id) => document.getElementById(id);

// An element with text and children; nothing is ever parsed as markup.
function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

// Kinds that one can choose: name, whether shown at first, and the rows.
const history = (...classes) => (row) => row[KIND] === HISTORY && classes.includes(row[CLASS]);
const kinds = [
  ["messages", true, (row) => row[KIND] === SENT || row[KIND] === RECEIVED],
  ["connections made, refused, ended", true, (row) => row[KIND] <= ACCEPTED || row[KIND] === ENDED || row[KIND] === DROPPED],
  ["requests", true, history(INVOKED)],
  ["outcomes", true, history(OK, FAILED, UNKNOWN)],
  ["entries shown, leaks", true, history(ENTRY, ALARM)],
  ["presence told", true, history(PRESENCE)],
  ["devices coming and going", true, history(MOVES)],
  ["reads at the end", true, history(FINAL)],
  ["faults", true, history(FAULT)],
  ["what hosts say", true, (row) => row[KIND] === SAID],
  ["random draws", false, (row) => row[KIND] === DREW],
];
const kindOf = Uint8Array.from(rows, (row) => kinds.findIndex(([, , has]) => has(row)));

const shown = new Uint8Array(rows.length);
const hostShown = hosts.map(() => true);
let shownCount = 0;
let filterChanged = () => {};

const choice = (text, value) => element("option", { textContent: text, value });
byId("user").append(choice("all", ""), ...data.users.map(([number, name]) => choice(visible(name), number)));
byId("conversation").append(choice("all", ""), ...data.conversations.map((name) => choice(name, name)));
byId("connection").append(choice("all", ""), ...data.connections.map(([from, to], at) => choice(`${at}: ${from} → ${to}`, at)));

function checkbox(text, checked) {
  const box = element("input", { type: "checkbox", defaultChecked: checked, checked });
  return [box, element("label", {}, box, " " + text)];
}
// Hosts that do nothing but draw are no line of their own at first.
const quiet = hosts.map(() => true);
rows.forEach((row) => { if (row[KIND] !== DREW) quiet[row[HOST]] = false; });
const hostBoxes = hosts.map((host, at) => checkbox(host, !quiet[at] || at === 0));
const kindBoxes = kinds.map(([name, checked]) => checkbox(name, checked));
byId("hosts").append(...hostBoxes.map(([, label]) => label));
byId("kinds").append(...kindBoxes.map(([, label]) => label));

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\-]/g, "\\$&");

function applyFilter() {
  const text = byId("text").value.toLowerCase();
  const [user, conversation, connection] = ["user", "conversation", "connection"].map((id) => byId(id).value);
  const kindsOn = kindBoxes.map(([box]) => box.checked);
  hostBoxes.forEach(([box], at) => { hostShown[at] = box.checked; });
  const name = user && data.users.find(([number]) => number === Number(user))[1].replace(/ \(\d+\)$/, "");
  const names = user && new RegExp(`"(user|from)":${user}\\b|"${escaped(name)}"`);
  const mentions = conversation && new RegExp(`(^|[^\\w-])${escaped(conversation)}($|[^\\w-])`);

  shownCount = 0;
  rows.forEach((row, at) => {
    const own = row[KIND] === HISTORY;
    let show = hostShown[row[HOST]] && kindsOn[kindOf[at]];
    if (show && connection) show = hasConnection(row) && row[CONNECTION] === Number(connection);
    if (show && user) show = own && row[CLASS] !== FAULT ? row[USER] === Number(user) : names.test(textOf(at));
    if (show && conversation) show = mentions.test(own ? string(row[CONVERSATIONS]) : textOf(at));
    if (show && text) show = title(at, Infinity).toLowerCase().includes(text) || textOf(at).toLowerCase().includes(text);
    shown[at] = show ? 1 : 0;
    shownCount += shown[at];
  });
  byId("count").textContent = `${shownCount.toLocaleString("en")} of ${rows.length.toLocaleString("en")} events`;
  filterChanged();
}

// The next row that is shown, in either direction; -1 if there is none.
function nextShown(from, step, wanted = () => true) {
  for (let at = from + step; at >= 0 && at < rows.length; at += step) if (shown[at] && wanted(at)) return at;
  return -1;
}

