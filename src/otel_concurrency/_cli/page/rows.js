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
    trace.open ? axis(trace) : placeInRun(view.run, trace),
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
    ...wordsAbout(left, width, duration(trace.end - trace.start), ""),
  );
}

// An open trace shows its time.
function axis(trace) {
  const { from, to } = shownTime(trace);
  const marks = [0, 0.25, 0.5, 0.75].map((part) =>
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
    flowCell(view.run, row),
    lane(row),
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
    span.leaks.length ? badge("warn", "leak") : null,
    span.links.length ? badge("link", "→ link") : null,
    span.parent !== null && span.up === null ? badge("dim", "remote parent") : null,
  ];
}

// The flow is named where it changes.
function flowCell(run, { span, lost }) {
  const flow = flowOf(run, span);
  const same = !lost && span.up !== null && flowOf(run, span.up) === flow;
  const title = [span.task, span.thread, `process ${span.pid}`].filter(Boolean).join(", ");
  return element("div", { class: same ? "flow same" : "flow", title }, element("i", { class: "dot" }), flow);
}

function lane({ trace, span, lost }) {
  const left = place(trace, span.start_ns);
  const width = Math.max(place(trace, span.end) - left, 0);
  const from = place(trace, leftAt(span, lost));
  const bar = { class: "bar", title: `${span.name}: ${duration(span.end - span.start_ns)}` };
  if (span.end_ns === null) bar.class += " unfinished";
  return element(
    "div",
    { class: "lane" },
    lost || span.out.length === 0 ? null : ticks(trace, span),
    element("div", { ...bar, style: { left: `${left}%`, width: `${width}%` } }),
    ...wordsAbout(left, width, lengthOf(span), lost ? lossWords(span) : handOffWords(span.via), from),
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

// How long it took stands behind a bar; how it came there too, if there is room, or on the arrow
// that leads to it, or before that, or on the bar.
function wordsAbout(left, width, length, via, from = left) {
  const right = left + width;
  const roomy = right < 62;
  const behindBar = { left: `${right}%`, "max-width": `calc(${100 - right}% + 58px)` };
  const behind = words("", behindBar, element("b", {}, length), roomy && via ? how(via) : null);
  if (roomy || !via) return [behind];
  if (left - from > 30) return [words("before on-arrow", endingAt(left), how(via)), behind];
  if (from > 28) return [words("before", endingAt(from), how(via)), behind];
  return [words("inside", { left: `${left}%`, "max-width": `${width}%` }, how(via)), behind];
}

function endingAt(place) {
  return { right: `${100 - place}%`, "max-width": `calc(${place}% - 16px)` };
}

function words(kind, style, ...children) {
  return element("div", { class: `words ${kind}`, style }, ...children);
}

function how(via) {
  return element("span", { class: "via" }, via);
}
