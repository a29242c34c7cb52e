"use strict";
// Makes the elements of the rows: the heading of a trace, a span, and a span that was lost, which
// is drawn where it should have been.
//
// A row is { trace, span, depth, lost }; the heading of a trace has no span.

function rowElement(view, row, index) {
  const made = row.span ? spanRow(view, row) : traceRow(view, row);
  made.id = `row-${index}`;
  made.style.top = `${index * view.rowHeight}px`;
  made.setAttribute("aria-selected", index === view.current);
  made.dataset.index = index;
  return made;
}

function traceRow(view, { trace }) {
  return element(
    "div",
    { class: "row trace", role: "treeitem", "aria-level": 1, "aria-expanded": trace.open },
    element(
      "div",
      { class: "name" },
      caret(trace.open),
      element("span", { class: "label" }, titleOf(trace)),
      ...traceBadges(trace),
    ),
    element("div", { class: "flow" }, many(trace.flows, "flow")),
    trace.open ? axis(view, trace) : placeInRun(view.run, trace),
  );
}

function titleOf(trace) {
  const [first] = trace.roots;
  const more = trace.roots.length - 1;
  return more === 0 ? first.name : `${first.name} and ${many(more, "other root")}`;
}

function traceBadges(trace) {
  return [
    element("span", { class: "count" }, many(trace.spans.length, "span")),
    trace.orphans ? badge("bad", trace.orphans === 1 ? "orphan" : many(trace.orphans, "orphan")) : null,
    trace.lost ? badge("bad", `${number(trace.lost)} lost`) : null,
    trace.leaks ? badge("warn", many(trace.leaks, "leak")) : null,
  ];
}

function badge(kind, words) {
  return element("span", { class: `badge ${kind}` }, words);
}

function caret(open) {
  return element("span", { class: "caret", "aria-hidden": "true" }, open ? "▾" : "▸");
}

// A folded trace shows when it was in the run.
function placeInRun(run, trace) {
  const { from, to } = run;
  const left = (100 * (trace.start - from)) / (to - from);
  const width = (100 * (trace.end - trace.start)) / (to - from);
  return element(
    "div",
    { class: "lane" },
    element("div", { class: "bar place", style: { left: `${left}%`, width: `${width}%` } }),
    ...wordsAbout(0, left, width, duration(trace.end - trace.start), ""),
  );
}

// An open trace shows its time.
function axis({ laneWidth }, trace) {
  const { from, to } = shownTime(trace);
  const parts = laneWidth > 0 && laneWidth < 220 ? [0] : [0, 0.25, 0.5, 0.75];
  const marks = parts.map((part) =>
    element(
      "span",
      { class: "mark", style: { left: `${100 * part}%` } },
      `${part === 0 && from === trace.start ? "0" : duration(from - trace.start + part * (to - from))}`,
    ),
  );
  const end = element("span", { class: "mark end" }, duration(to - trace.start));
  return element("div", { class: "lane axis" }, ...marks, end);
}

function shownTime(trace) {
  return trace.zoom ?? { from: trace.start, to: Math.max(trace.shown, trace.start + 1) };
}

function spanRow(view, row) {
  const { span, lost, depth } = row;
  const kinds = ["row", "span"];
  if (lost) kinds.push("lost");
  if (span.orphan) kinds.push("orphan");
  if (!lost && isWrong(span)) kinds.push("wrong");
  if (!lost && view.hits.has(span)) kinds.push("hit");
  return element(
    "div",
    {
      class: kinds.join(" "),
      role: "treeitem",
      "aria-level": depth + 2,
      "aria-expanded": !lost && span.family.length > 0 ? span.open : null,
      style: { "--depth": Math.min(depth, view.deepest), "--hue": `var(--hue-${span.hue})` },
    },
    nameCell(row, depth - view.deepest),
    flowCell(view, row),
    lane(view, row),
  );
}

function nameCell({ span, lost }, beyond) {
  return element(
    "div",
    { class: "name" },
    beyond > 0 ? element("span", { class: "beyond", title: "levels deeper" }, `+${beyond}`) : null,
    !lost && span.family.length > 0 ? caret(span.open) : element("span", { class: "caret" }),
    span.orphan ? element("span", { class: "cross", "aria-hidden": "true" }, "✗") : null,
    element("span", { class: "label", title: span.name }, span.name),
    !lost && span.family.length > 0 && !span.open
      ? element("span", { class: "count" }, number(span.family.length))
      : null,
    lost && span.trace.spans.length > 1
      ? element("span", { class: "count" }, many(span.trace.spans.length, "span"))
      : null,
    ...spanBadges(span, lost),
  );
}

function spanBadges(span, lost) {
  if (lost) return [badge("bad", "lost its parent")];
  return [
    span.status === "ERROR" ? badge("bad", "error") : null,
    span.orphan ? badge("bad", "orphan") : null,
    span.leaks.length ? badge("warn", isWrong(span) ? "wrong parent" : "leak") : null,
    span.links.length ? badge("link", span.links.length > 1 ? `→ ${many(span.links.length, "link")}` : "→ link") : null,
    span.parent !== null && span.up === null ? badge("dim", "remote parent") : null,
  ];
}

// Whether its parent belongs to other work.
function isWrong(span) {
  return span.up !== null && span.leaks.some((leak) => leak.reason !== "not_exported");
}

// The flow is named where it changes.
function flowCell({ run, flowWidth }, { span, lost }) {
  const flow = flowOf(run, span);
  const same = !lost && span.up !== null && flowOf(run, span.up) === flow;
  const title = [span.task, span.thread, `process ${span.pid}`].filter(Boolean).join(", ");
  const cut = middleCut(flow, FLOW, flowWidth - 26);
  return element("div", { class: same ? "flow same" : "flow", title }, element("i", { class: "dot" }), cut);
}

function lane(view, { trace, span, lost }) {
  const left = place(trace, span.start_ns);
  const width = Math.max(place(trace, span.end) - left, 0);
  const from = place(trace, leftAt(span, lost));
  const how = lost ? lossWords(span) : handOffWords(span.via);
  const bar = { class: "bar" };
  if (span.end_ns === null) bar.class += " unfinished";
  return element(
    "div",
    { class: "lane", title: [`${span.name}: ${lengthOf(span)}`, how].filter(Boolean).join("\n") },
    lost || span.out.length === 0 ? null : ticks(trace, span),
    element("div", { ...bar, style: { left: `${left}%`, width: `${width}%` } }),
    ...wordsAbout(view.laneWidth, left, width, lengthOf(span), how, from),
  );
}

function lengthOf(span) {
  return span.end_ns === null ? "did not end" : duration(span.end_ns - span.start_ns);
}

// In percent of what is shown of its trace, at its edge if it is outside.
function place(trace, moment) {
  const { from, to } = shownTime(trace);
  return Math.min(Math.max((100 * (moment - from)) / (to - from), 0), 100);
}

// Hand-offs that no span came of are seen here only.
function ticks(trace, span) {
  const made = span.out.slice(0, 200).map((each) =>
    element("i", { class: "tick", style: { left: `${place(trace, each.at_ns)}%` }, title: each.call }),
  );
  return element("div", { class: "ticks" }, ...made);
}

function handOffWords(handOff) {
  if (handOff === null) return "";
  const waited = handOff.attached_ns === null ? "" : `, waited ${duration(waitOf(handOff))}`;
  return `${handOff.call} at ${shortSite(handOff.site)}${waited}`;
}

function lossWords(span) {
  const { orphan, via } = span;
  if (wasLostBy(span)) return `${via.call} at ${shortSite(via.site)}`;
  return orphan.site ? `lost at ${shortSite(orphan.site)}` : "lost";
}

// Whether it is by its hand-off that a span has lost its parent, or by something that came later.
function wasLostBy({ via, orphan }) {
  return via !== null && via.origin === orphan.origin;
}

// When the work left its origin, if that is known.
function leftAt(span, lost) {
  if (span.via === null || (lost && !wasLostBy(span))) return span.start_ns;
  return span.via.at_ns;
}

function waitOf(handOff) {
  return handOff.attached_ns === null ? null : Math.max(handOff.attached_ns - handOff.at_ns, 0);
}

// How long it took stands behind a bar. How it came there does too, if there is room for it, or on
// the arrow that leads to it, or before that; else it is seen when the pointer rests on the row. No
// words cover a bar.
function wordsAbout(laneWidth, left, width, length, via, from = left) {
  const right = left + width;
  const behindBar = { left: `${right}%` };
  const room = roomFor(laneWidth, via);
  const behind = (more) => words("", behindBar, element("b", {}, length), more);
  if (room(100 - right, BEHIND_LANE - widthOf(length, WORDS) - 24)) return [behind(how(via))];
  if (room(left - from, -44)) return [words("before on-arrow", endingAt(left), how(via)), behind(null)];
  if (room(from, -24)) return [words("before", endingAt(from), how(via)), behind(null)];
  return [behind(null)];
}

const WORDS = 12; // the size of the font, in pixels, as in the style sheet
const FLOW = 12.5;
const BEHIND_LANE = 84; // pixels that a row has behind its lane

// Whether the words are no wider than a part of the lane, in percent, and some more pixels.
function roomFor(laneWidth, via) {
  const needed = via ? widthOf(via, WORDS) : Infinity;
  return (percent, more) => laneWidth > 0 && (laneWidth * percent) / 100 + more >= needed;
}

function endingAt(place) {
  return { right: `${100 - place}%` };
}

function words(kind, style, ...children) {
  return element("div", { class: `words ${kind}`, style }, ...children);
}

function how(via) {
  return element("span", { class: "via" }, via);
}
