"use strict";
// Draws the hand-offs: from the span that handed the work off, down at the moment when it did, and
// across for as long as the work waited, to the span that came of it.

const CORNER = 6;

// The edges that end in the rows from first to last. A lane is { left, width } in pixels.
function edgesOf(view, first, last, laneBox) {
  const edges = [];
  for (let index = first; index < last; index++) {
    const edge = edgeTo(view, index, laneBox);
    if (edge !== null) edges.push(edge);
  }
  return edges;
}

function edgeTo(view, index, laneBox) {
  const { trace, span, lost } = view.rows[index];
  const origin = span && originOf(view.run, span, lost);
  if (!origin || origin.trace !== trace) return null;
  const from = view.shownRowOf(origin);
  if (from === undefined || from >= index) return null;

  const x = (moment) => laneBox.left + (laneBox.width * place(trace, moment)) / 100;
  const y = (row) => row * view.rowHeight + view.barMiddle;
  const chosen = index === view.current || from === view.current;
  return svg(
    "path",
    {
      class: `edge${lost ? " broken" : ""}${chosen ? " chosen" : ""}`,
      d: elbow(x(leftAt(span, lost)), y(from), x(span.start_ns), y(index)),
      "marker-end": "url(#tip)",
      "data-to": span.id,
      "data-hand-off": span.via?.id ?? "",
    },
    svg("title", {}, edgeWords(span, origin, lost)),
  );
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
