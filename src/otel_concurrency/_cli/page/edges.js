"use strict";
// Draws the hand-offs: from the span that handed the work off, down at the moment when it did, and
// across for as long as the work waited, to the span that came of it.

const CORNER = 6;

// The edges that end in the rows from first to last. A lane is { left, width } in pixels.
function edgesOf(view, first, last, laneBox) {
  const edges = [];
  for (let index = first; index < last; index++) {
    for (const edge of [edgeTo(view, index, laneBox), wrongEdge(view, index, laneBox)]) {
      if (edge !== null) edges.push(edge);
    }
    edges.push(...linkEdges(view, index, laneBox));
  }
  return edges;
}

function placesIn(view, laneBox) {
  return {
    x: (trace, moment) => laneBox.left + (laneBox.width * place(trace, moment)) / 100,
    y: (row) => row * view.rowHeight + view.barMiddle,
  };
}

function edgeTo(view, index, laneBox) {
  const { trace, span, lost } = view.rows[index];
  const origin = span && originOf(view.run, span, lost);
  if (!origin || origin.trace.id !== trace.id) return null;
  const from = view.shownRowOf(origin);
  if (from === undefined || from >= index) return null;

  const { x, y } = placesIn(view, laneBox);
  const chosen = index === view.current || from === view.current;
  return svg(
    "path",
    {
      class: `edge${lost ? " broken" : ""}${chosen ? " chosen" : ""}`,
      d: elbow(x(trace, leftAt(span, lost)), y(from), x(trace, span.start_ns), y(index)),
      "marker-end": "url(#tip)",
      "data-to": span.id,
      "data-hand-off": span.via?.id ?? "",
    },
    svg("title", {}, edgeWords(span, origin, lost)),
  );
}

// From a parent that belongs to other work, to the span that became its child.
function wrongEdge(view, index, laneBox) {
  const { trace, span, lost } = view.rows[index];
  if (!span || lost || !isWrong(span)) return null;
  const from = view.rowOf.get(span.up);
  if (from === undefined) return null;
  const { x, y } = placesIn(view, laneBox);
  const [x0, x1] = [x(trace, Math.min(span.start_ns, span.up.end)), x(trace, span.start_ns)];
  return svg(
    "path",
    {
      class: `edge wrong${index === view.current || from === view.current ? " chosen" : ""}`,
      d: elbow(x0, y(from), x1, y(index)),
      "marker-end": "url(#tip)",
      "data-to": span.id,
    },
    svg("title", {}, `${span.up.name} is no parent of ${span.name}, which belongs to other work`),
  );
}

const BATCH = 4; // from so many links on, they are drawn for the current row only
const MOST_LINKS = 50;

// From what a span is linked to, in its own trace or another, to the span.
function linkEdges(view, index, laneBox) {
  const { trace, span, lost } = view.rows[index];
  if (!span || lost || span.links.length === 0) return [];
  const isCurrent = index === view.current;
  if (span.links.length >= BATCH && !isCurrent) return [];
  const { x, y } = placesIn(view, laneBox);
  const edges = [];
  for (const link of span.links.slice(0, MOST_LINKS)) {
    const target = view.run.spanOf.get(idOf(...link.to));
    const from = target && (view.shownRowOf(target) ?? view.rowOf.get(target.trace));
    if (from === undefined || from === index) continue;
    const at = { x: x(target.trace, target.end), y: y(from) };
    if (!target.trace.open) at.x = laneBox.left + (laneBox.width * endInRun(view.run, target.trace)) / 100;
    const to = { x: x(trace, span.start_ns), y: y(index) };
    const chosen = isCurrent || from === view.current;
    edges.push(
      svg(
        "path",
        {
          class: `edge link${chosen ? " chosen" : ""}`,
          d: curve(at, to),
          "marker-end": "url(#tip)",
          "data-to": span.id,
          "data-link": target.id,
        },
        svg("title", {}, `${span.name} is linked to ${target.name}${link.reason ? ` (${link.reason})` : ""}`),
      ),
    );
  }
  return edges;
}

function endInRun({ from, to }, trace) {
  return (100 * (trace.end - from)) / (to - from);
}

function curve(at, to) {
  const middle = (at.y + to.y) / 2;
  return `M${at.x},${at.y} C${at.x},${middle} ${to.x},${middle} ${to.x},${to.y + (at.y < to.y ? -6 : 6)}`;
}

function originOf(run, span, lost) {
  return run.spanOf.get(lost ? span.orphan.origin : span.via?.origin);
}

function edgeWords(span, origin, lost) {
  const by = span.via && (!lost || wasLostBy(span)) ? ` by ${span.via.call} at ${span.via.site}` : "";
  return `${origin.name} to ${span.name}${by}`;
}

function elbow(x0, y0, x1, y1) {
  const across = x1 - x0;
  if (across < 9) return `M${x1 + 1},${y0} V${y1 - 6}`;
  const corner = Math.min(CORNER, across / 2);
  return `M${x0},${y0} V${y1 - corner} Q${x0},${y1} ${x0 + corner},${y1} H${x1 - 1}`;
}
