"use strict";
// The view of the traces. Of all rows only those in sight, and a few around them, are elements of
// the page, so that it makes no difference how many there are.

const AROUND = 12;

const view = {
  run: null,
  traces: [], // those that are listed, in order
  rows: [],
  rowOf: new Map(), // of spans and traces
  current: -1,
  query: "",
  found: [], // the spans that the query matches, in order
  hits: new Set(), // the same
  sort: "start",
  rowHeight: 28,
  barMiddle: 14,
  deepest: 24,
  laneWidth: 0, // pixels; 0 where there is no room for words about hand-offs
  flowWidth: 100,
  shownRowOf(span) {
    let each = span;
    while (each !== null && !this.rowOf.has(each)) each = each.up;
    return each === null ? undefined : this.rowOf.get(each);
  },
};

// --- what is listed --------------------------------------------------------------------------------

function showRun(run) {
  view.run = run;
  view.current = -1;
  closeDetails();
  search(view.query);
}

function search(query) {
  view.query = query.trim();
  const sorted = [...view.run.traces].sort(SORTS[view.sort]);
  view.found = view.query ? matching(sorted, view.query) : [];
  view.hits = new Set(view.found);
  const withHits = new Set(view.found.map((span) => span.trace));
  view.traces = view.query ? sorted.filter((trace) => withHits.has(trace)) : sorted;
  if (view.found.length > 0) reveal(view.found[0]);
  else layOut();
  showFound();
}

function showFound() {
  const at = view.found.indexOf(currentSpan());
  const total = many(view.found.length, "match", "matches");
  byId("found").textContent = !view.query ? "" : at < 0 ? total : `${number(at + 1)} of ${total}`;
  byId("next").disabled = byId("previous").disabled = view.found.length === 0;
}

function goToMatch(step) {
  if (view.found.length === 0) return;
  const at = view.found.indexOf(currentSpan());
  const next = at < 0 ? 0 : at + step;
  reveal(view.found[(next + view.found.length) % view.found.length]);
}

function currentSpan() {
  return view.rows[view.current]?.span ?? null;
}

// --- rows ------------------------------------------------------------------------------------------

// Makes the rows anew, and stays at the row that was the current one.
function layOut() {
  const current = view.rows[view.current];
  view.rows = [];
  view.rowOf = new Map();
  for (const trace of view.traces) {
    addRow(trace, { trace, span: null, depth: 0, lost: false });
    if (trace.open) addSpans(trace);
  }
  view.current = current ? view.rowOf.get(current.span ?? current.trace) ?? -1 : -1;
  byId("canvas").style.height = `${view.rows.length * view.rowHeight}px`;
  paint();
}

function addRow(of, row) {
  if (!row.lost) view.rowOf.set(of, view.rows.length);
  view.rows.push(row);
}

function addSpans(trace) {
  for (const row of rowsOfSpans(trace)) addRow(row.span, row);
}

function rowsOfSpans(trace) {
  const rows = [];
  const pending = trace.roots.map((span) => ({ trace, span, depth: 0, lost: false })).reverse();
  while (pending.length > 0) {
    const row = pending.pop();
    rows.push(row);
    if (row.lost || !row.span.open) continue;
    const { family } = row.span;
    for (let last = family.length - 1; last >= 0; last--) {
      const lost = family[last].up !== row.span;
      pending.push({ trace, span: family[last], depth: row.depth + 1, lost });
    }
  }
  return rows;
}

// --- painting --------------------------------------------------------------------------------------

function paint() {
  const tree = byId("tree");
  const inSight = tree.clientHeight || 800;
  const first = Math.max(Math.floor(tree.scrollTop / view.rowHeight) - AROUND, 0);
  const last = Math.min(Math.ceil((tree.scrollTop + inSight) / view.rowHeight) + AROUND, view.rows.length);
  const elements = [];
  for (let index = first; index < last; index++) elements.push(rowElement(view, view.rows[index], index));
  if (elements.length === 0) elements.push(emptyRow());
  byId("rows").replaceChildren(...elements);
  byId("paths").replaceChildren(...edgesOf(view, first, last, laneBox()));
  if (view.current >= 0) tree.setAttribute("aria-activedescendant", `row-${view.current}`);
  else tree.removeAttribute("aria-activedescendant");
}

function emptyRow() {
  const words = view.query ? `No span matches “${view.query}”.` : "No spans were seen.";
  return element("p", { class: "empty" }, words);
}

function laneBox() {
  const found = byId("rows").querySelector(".lane");
  if (found === null) return { left: 0, width: 0 };
  const canvas = byId("canvas").getBoundingClientRect();
  const box = found.getBoundingClientRect();
  return { left: box.left - canvas.left, width: box.width };
}

// The sizes that the style sheet has chosen for this width.
function measure() {
  const style = getComputedStyle(byId("tree"));
  view.rowHeight = parseFloat(style.getPropertyValue("--row"));
  view.barMiddle = parseFloat(style.getPropertyValue("--bar-middle"));
  view.deepest = parseFloat(style.getPropertyValue("--deepest"));
  const [flow, lane] = byId("head").querySelectorAll(".flow, .lane");
  const isWide = lane.offsetWidth > 0;
  view.laneWidth = lane.offsetWidth;
  view.flowWidth = isWide ? flow.offsetWidth : 0.38 * byId("tree").clientWidth - 14;
  if (view.run !== null) layOut();
}

// --- going about -----------------------------------------------------------------------------------

// Goes to a span, or to a trace, unfolding what it is in.
function reveal(target) {
  const trace = target.trace ?? target;
  if (!view.traces.includes(trace)) clearSearch();
  if (target.trace) {
    trace.open = true;
    for (let each = target.up; each !== null; each = each.up) each.open = true;
  }
  layOut();
  goTo(view.rowOf.get(target));
}

function goTo(index) {
  if (index === undefined || view.rows.length === 0) return;
  view.current = Math.min(Math.max(index, 0), view.rows.length - 1);
  scrollToCurrent();
  paint();
  showFound();
  if (!byId("details").hidden) showDetails(view.rows[view.current]);
}

function scrollToCurrent() {
  const tree = byId("tree");
  const head = byId("head").offsetHeight;
  const top = view.current * view.rowHeight;
  const room = tree.clientHeight - head - view.rowHeight;
  if (top < tree.scrollTop) tree.scrollTop = Math.max(top - room / 3, 0);
  else if (top > tree.scrollTop + room) tree.scrollTop = top - room / 1.5;
}

function clearSearch() {
  byId("search").value = "";
  search("");
}

function setOpen(row, open) {
  const target = row.span ?? row.trace;
  if (row.lost || target.open === open) return;
  target.open = open;
  layOut();
}

function setAllOpen(open) {
  for (const trace of view.traces) {
    trace.open = open;
    for (const span of trace.spans) span.open = true;
  }
  layOut();
}

function canOpen(row) {
  return !row.lost && (row.span === null || row.span.family.length > 0);
}

function isOpen(row) {
  return canOpen(row) && (row.span ?? row.trace).open;
}

function goToParent(row) {
  let index = view.current - 1;
  while (index > 0 && view.rows[index].span !== null && view.rows[index].depth >= row.depth) index--;
  if (row.span !== null) goTo(row.depth === 0 ? view.rowOf.get(row.trace) : index);
}

// --- zoom ------------------------------------------------------------------------------------------

function zoomTo(trace, from, to) {
  const least = Math.max((trace.shown - trace.start) * 1e-5, 10);
  const whole = from <= trace.start && to >= trace.shown;
  trace.zoom = whole ? null : { from, to: Math.max(to, from + least) };
  paint();
}

function zoomBy(row, factor) {
  const { trace, span } = row;
  const { from, to } = shownTime(trace);
  const middle = span && factor < 1 ? (span.start_ns + span.end) / 2 : (from + to) / 2;
  const half = ((to - from) * factor) / 2;
  zoomTo(trace, Math.max(middle - half, trace.start), Math.min(middle + half, trace.shown));
}

let dragged = false;

// Also where an arrow is in the way: what counts is the place.
function startDrag(event) {
  const canvas = byId("canvas").getBoundingClientRect();
  const row = view.rows[Math.floor((event.clientY - canvas.top) / view.rowHeight)];
  const box = laneBox();
  box.left += canvas.left;
  const inLane = event.clientX >= box.left && event.clientX <= box.left + box.width;
  if (!inLane || !row?.trace.open || event.button !== 0 || event.pointerType === "touch") return;

  const chosen = element("div", { id: "chosen" });
  const moved = (move) => drawChosen(chosen, box, event.clientX, move.clientX);
  const ended = (up) => {
    removeEventListener("pointermove", moved);
    chosen.remove();
    if (Math.abs(up.clientX - event.clientX) < 6) return;
    dragged = true; // so that it is no click as well
    setTimeout(() => (dragged = false));
    zoomToDragged(row.trace, box, event.clientX, up.clientX);
  };
  byId("tree").append(chosen);
  addEventListener("pointermove", moved);
  addEventListener("pointerup", ended, { once: true });
}

function drawChosen(chosen, box, one, other) {
  const tree = byId("tree").getBoundingClientRect();
  const left = Math.max(Math.min(one, other), box.left);
  const right = Math.min(Math.max(one, other), box.left + box.width);
  const style = { left: `${left}px`, width: `${right - left}px`, top: `${tree.top}px`, height: `${tree.height}px` };
  setStyle(chosen, style);
  getSelection().removeAllRanges();
}

function zoomToDragged(trace, box, one, other) {
  const { from, to } = shownTime(trace);
  const moment = (x) => from + ((to - from) * Math.min(Math.max(x - box.left, 0), box.width)) / box.width;
  zoomTo(trace, moment(Math.min(one, other)), moment(Math.max(one, other)));
}

// --- mouse and keys --------------------------------------------------------------------------------

function rowAt(event) {
  const found = event.target.closest(".row");
  return found && view.rows[found.dataset.index];
}

function clickRow(event) {
  const row = rowAt(event);
  if (!row || dragged) return;
  view.current = view.rows.indexOf(row);
  if (row.lost) reveal(row.span);
  else if (row.span === null || event.target.closest(".caret")) {
    if (canOpen(row)) setOpen(row, !isOpen(row));
  } else if (!getSelection().toString()) showDetails(row);
  goTo(view.current);
}

function clickEdge(event) {
  const span = view.run.spanOf.get(event.target.closest(".edge")?.dataset.to);
  if (!span || dragged) return;
  reveal(span);
  showDetails(view.rows[view.current]);
}

const KEYS = {
  ArrowDown: () => goTo(view.current + 1),
  ArrowUp: () => goTo(view.current - 1),
  PageDown: () => goTo(view.current + pageOfRows()),
  PageUp: () => goTo(view.current - pageOfRows()),
  Home: () => goTo(0),
  End: () => goTo(view.rows.length - 1),
  ArrowRight: (row) => (canOpen(row) && !isOpen(row) ? setOpen(row, true) : goTo(view.current + 1)),
  ArrowLeft: (row) => (isOpen(row) ? setOpen(row, false) : goToParent(row)),
  Enter: (row) => (row.lost ? reveal(row.span) : showDetails(row, true)),
  " ": (row) => canOpen(row) && setOpen(row, !isOpen(row)),
  "+": (row) => zoomBy(row, 0.5),
  "-": (row) => zoomBy(row, 2),
  0: (row) => zoomTo(row.trace, row.trace.start, row.trace.shown),
  n: () => goToMatch(1),
  N: () => goToMatch(-1),
};

function pageOfRows() {
  return Math.max(Math.floor(byId("tree").clientHeight / view.rowHeight) - 2, 1);
}

function pressKey(event) {
  const action = KEYS[event.key];
  if (!action || event.ctrlKey || event.metaKey || event.altKey || view.rows.length === 0) return;
  event.preventDefault();
  if (view.current < 0 && event.key !== "ArrowDown") view.current = 0;
  action(view.rows[view.current]);
}

function startWaterfall() {
  const tree = byId("tree");
  let asked = false;
  tree.addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      paint();
    });
  });
  byId("rows").addEventListener("click", clickRow);
  byId("canvas").addEventListener("pointerdown", startDrag);
  byId("rows").addEventListener("dblclick", (event) => {
    const row = event.target.closest(".lane") && rowAt(event);
    if (row?.trace.zoom) zoomTo(row.trace, row.trace.start, row.trace.shown);
  });
  byId("paths").addEventListener("click", clickEdge);
  tree.addEventListener("keydown", pressKey);
  new ResizeObserver(measure).observe(tree);
}
