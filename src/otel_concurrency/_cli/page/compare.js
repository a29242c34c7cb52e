"use strict";
// Both runs of a comparison at once: each request of the one beside the same request of the other,
// on one scale of time.

const MOST_PAIRS = 30;
const MOST_ROWS = 60; // of a request

const compared = { runs: [], width: 0 };

function showComparison(runs) {
  compared.runs = runs.slice(0, 2);
  byId("tab-compare").hidden = runs.length < 2;
  new ResizeObserver(() => {
    if (byId("compare").clientWidth !== compared.width) paintComparison();
  }).observe(byId("compare"));
}

function paintComparison() {
  const section = byId("compare");
  compared.width = section.clientWidth;
  if (section.hidden) return;
  const pairs = pairsOf(compared.runs);
  const rest = pairs.length - MOST_PAIRS;
  section.replaceChildren(
    ...pairs.slice(0, MOST_PAIRS).map((pair) => pairElement(pair)),
    rest > 0 ? element("p", { class: "dim" }, `and ${number(rest)} more, which are among the traces of each run`) : "",
    pairs.length === 0 ? element("p", { class: "empty" }, "There is no request that could be compared.") : "",
  );
  for (const half of section.querySelectorAll(".half")) half.paint?.();
}

// --- which requests are the same -------------------------------------------------------------------

// The first request of a name in one run is the first of that name in the other.
function pairsOf([one, other]) {
  const waiting = new Map();
  for (const trace of requestsOf(other)) {
    const name = nameOf(trace);
    if (!waiting.has(name)) waiting.set(name, []);
    waiting.get(name).push(trace);
  }
  for (const traces of waiting.values()) traces.reverse();
  const pairs = requestsOf(one).map((trace) => [trace, waiting.get(nameOf(trace))?.pop() ?? null]);
  for (const traces of waiting.values()) pairs.push(...traces.reverse().map((trace) => [null, trace]));
  return pairs;
}

// An orphan's trace is shown where it was lost.
function requestsOf(run) {
  return run.traces.filter((trace) => trace.roots.some((root) => root.orphan === null));
}

function nameOf(trace) {
  return trace.roots.find((root) => root.orphan === null).name;
}

// --- what is drawn ---------------------------------------------------------------------------------

function pairElement(pair) {
  const extent = Math.max(...pair.map((trace) => (trace ? trace.shown - trace.start : 0)), 1);
  const name = nameOf(pair[0] ?? pair[1]);
  return element(
    "div",
    { class: "pair" },
    element("h2", {}, name),
    ...pair.map((trace, run) => halfElement(run, trace, extent, name)),
  );
}

function halfElement(index, trace, extent, name) {
  const run = compared.runs[index];
  const title = run.title || (run.library ? "library on" : "library off");
  if (trace === null) {
    return element("div", { class: "half" }, element("header", {}, element("b", {}, title)), element("p", { class: "empty" }, "Not in this run."));
  }
  const open = () => goToRun(index, trace);
  const button = element("button", { type: "button", "aria-label": `Open ${name} of ${title}`, onclick: open }, "Open");
  const half = element(
    "div",
    { class: "half" },
    element("header", {}, element("b", {}, title), ...traceBadges(trace), button),
  );
  half.paint = () => half.append(...paneElements(half, index, trace, extent, `${name}, ${title}`));
  return half;
}

function paneElements(half, index, trace, extent, label) {
  const pane = element("div", { class: "pane", role: "list", "aria-label": label });
  half.append(pane);
  const own = paneView(pane, compared.runs[index], trace, extent);
  const canvas = element("div", { class: "canvas", role: "presentation" });
  canvas.style.height = `${own.rows.length * own.rowHeight}px`;
  canvas.append(...own.rows.map((row, at) => paneRow(own, row, at, index)));
  pane.append(canvas);

  const lane = canvas.querySelector(".lane").getBoundingClientRect();
  const box = { left: lane.left - canvas.getBoundingClientRect().left, width: lane.width };
  const edges = edgesOf(own, 0, own.rows.length, box);
  canvas.append(svg("svg", { class: "edges", "aria-hidden": "true" }, ...edges));
  const rest = own.all - own.rows.length;
  return rest > 0 ? [element("p", { class: "dim" }, `and ${many(rest, "more row")}`)] : [];
}

// What the functions that draw rows and edges need to know of a pane.
function paneView(pane, run, trace, extent) {
  const zoom = { from: trace.start, to: trace.start + extent };
  const shown = Object.create(trace, { zoom: { value: zoom }, open: { value: true } });
  const all = [{ trace: shown, span: null, depth: 0, lost: false }, ...rowsOfSpans(shown)];
  const rows = all.slice(0, MOST_ROWS);
  const rowOf = new Map();
  rows.forEach((row, at) => row.lost || rowOf.set(row.span ?? trace, at));
  const sizes = getComputedStyle(pane);
  const size = (name) => parseFloat(sizes.getPropertyValue(name));
  const width = pane.clientWidth;
  const isWide = size("--row") < 40;
  return {
    ...{ run, rows, rowOf, all: all.length, current: -1, hits: new Set(), shownRowOf: view.shownRowOf },
    ...{ rowHeight: size("--row"), barMiddle: size("--bar-middle"), deepest: size("--deepest") },
    laneWidth: isWide ? width * 0.56 - BEHIND_LANE : 0,
    flowWidth: (isWide ? 0.14 : 0.38) * width - 14,
  };
}

function paneRow(own, row, at, index) {
  const made = rowElement(own, row, at);
  for (const name of ["id", "aria-level", "aria-expanded", "aria-selected"]) made.removeAttribute(name);
  made.setAttribute("role", "listitem");
  made.addEventListener("click", () => goToRun(index, row.span ?? row.trace));
  return made;
}

function goToRun(index, target) {
  choose(compared.runs, index);
  showView("traces");
  const trace = compared.runs[index].traces.find((each) => each.id === target.id);
  reveal(trace ?? target);
  byId("tree").focus();
}
