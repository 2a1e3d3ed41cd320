// Going about in the diagram: zoom, scroll, and what is under the pointer.

function zoom(times, around = HEADER + (height - HEADER) / 2) {
  const time = timeAt(around);
  view.scale *= times;
  view.scale = Math.min(SCALE_MAX, Math.max(scaleMin(), view.scale));
  view.from = time - (around - HEADER) / view.scale;
  clampView(); redraw();
}

function pan(down, right = 0) {
  view.from += down / view.scale; view.left += right;
  clampView(); redraw();
}

function fit(from = 0, to = last) {
  const room = Math.max(to - from, data.tick);
  view.scale = (height - HEADER - 24) / room;
  view.from = from;
  clampView(); redraw();
}

function reveal(at) {
  const now = y(position[at]), atX = x(rows[at][HOST]);
  if (now < HEADER + 30 || now > height - 40) view.from = position[at] - (height - HEADER) / 3 / view.scale;
  if (atX !== null && (atX < GUTTER || atX > width - 30)) view.left += atX - width / 2;
  clampView();
}

function select(at, show = true) {
  selected = at;
  if (at >= 0 && show) reveal(at);
  selectionChanged(); redraw();
}

// A proof is looked at from near, with what is around it.
function goTo(at) {
  const near = (height - HEADER) / (data.tick * 14);
  if (view.scale < near / 4) { view.scale = near; view.from = position[at] - (height - HEADER) / 3 / near; }
  select(at);
}

// What is under the pointer: an event on a line, or a message.
function under(atX, atY) {
  let best = null, distance = 9;
  for (const point of points) {
    const away = Math.hypot(point.x - atX, point.y - atY) - (rows[point.row][KIND] === HISTORY ? 2 : 0);
    if (away < distance) { distance = away; best = point.row; }
  }
  if (best !== null) return best;
  distance = 5;
  for (const { x1, y1, x2, y2, from, to } of segments) {
    if (atY < Math.min(y1, y2) - 5 || atY > Math.max(y1, y2) + 5) continue;
    const long = (x2 - x1) ** 2 + (y2 - y1) ** 2 || 1;
    const share = Math.max(0, Math.min(1, ((atX - x1) * (x2 - x1) + (atY - y1) * (y2 - y1)) / long));
    const away = Math.hypot(x1 + share * (x2 - x1) - atX, y1 + share * (y2 - y1) - atY);
    if (away < distance) { distance = away; best = share > 0.7 && to >= 0 ? to : from; }
  }
  return best === null ? -1 : best;
}

const spot = (event) => { const box = canvas.getBoundingClientRect(); return [event.clientX - box.left, event.clientY - box.top]; };

let held = null;
canvas.addEventListener("pointerdown", (event) => {
  held = { x: event.clientX, y: event.clientY, moved: false };
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  if (held) {
    const [right, down] = [held.x - event.clientX, held.y - event.clientY];
    if (held.moved || Math.hypot(right, down) > 3) {
      Object.assign(held, { x: event.clientX, y: event.clientY, moved: true });
      canvas.classList.add("held"); tip.hidden = true;
      pan(down, right);
    }
    return;
  }
  const [atX, atY] = spot(event), at = under(atX, atY);
  canvas.classList.toggle("over", at >= 0);
  tip.hidden = at < 0;
  if (at >= 0) {
    tip.textContent = `${seconds(rows[at][AT])}  ${hosts[rows[at][HOST]]}  ${title(at)}`;
    tip.style.left = Math.max(4, Math.min(atX + 14, width - tip.offsetWidth - 8)) + "px";
    tip.style.top = (atY + 18 + tip.offsetHeight > height ? atY - tip.offsetHeight - 10 : atY + 18) + "px";
  }
});
canvas.addEventListener("pointerup", (event) => {
  if (held && !held.moved) select(under(...spot(event)), false);
  held = null;
  canvas.classList.remove("held");
});
canvas.addEventListener("pointercancel", () => { held = null; canvas.classList.remove("held"); });
canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  tip.hidden = true;
  const lines = event.deltaMode === 1 ? 16 : event.deltaMode === 2 ? height : 1;
  const [right, down] = [event.deltaX * lines, event.deltaY * lines];
  if (event.shiftKey || Math.abs(right) > Math.abs(down)) pan(event.shiftKey ? down + right : 0, event.shiftKey ? 0 : right);
  else zoom(Math.exp(-down * 0.0022), spot(event)[1]);
}, { passive: false });

let sliding = false;
function slide(event) {
  const share = (event.clientY - overview.getBoundingClientRect().top - 4) / (height - 8);
  view.from = share * last - (height - HEADER) / 2 / view.scale;
  clampView(); redraw();
}
overview.addEventListener("pointerdown", (event) => { sliding = true; overview.setPointerCapture(event.pointerId); slide(event); });
overview.addEventListener("pointermove", (event) => { if (sliding) slide(event); });
overview.addEventListener("pointerup", () => { sliding = false; });

