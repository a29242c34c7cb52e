"use strict";
// One run of a program: its spans as trees, with everything that belongs to a span put to it.
//
// A span gets: trace, up (its parent, if that was seen), children, lost (roots that should have
// been its children), family (both, by start), end, open, hue, via (its hand-off), out (hand-offs
// that it made), orphan, leaks.

const HUES = 10;

function makeRun(report) {
  const run = {
    ...report,
    spanOf: new Map(),
    handOffOf: new Map(report.hand_offs.map((each) => [each.id, each])),
    hues: new Map(),
    firstPid: report.processes[0]?.pid ?? report.spans[0]?.pid,
  };
  prepareSpans(run);
  addHandOffs(run);
  addProblems(run);
  run.traces = tracesOf(run);
  Object.assign(run, timeOf(run));
  openFirst(run.traces);
  return run;
}

// From the beginning of the first span to the end of the last.
function timeOf(run) {
  let from = Infinity;
  let to = -Infinity;
  for (const trace of run.traces) {
    from = Math.min(from, trace.start);
    to = Math.max(to, trace.end);
  }
  return { from, to: Math.max(to, from + 1) };
}

function prepareSpans(run) {
  for (const span of run.spans) {
    const end = span.end_ns ?? run.length_ns;
    Object.assign(span, { trace: null, up: null, children: [], lost: [], family: null });
    Object.assign(span, { open: true, via: null, out: [], orphan: null, leaks: [] });
    Object.assign(span, { end: Math.max(end, span.start_ns), hue: hueOf(run, span), words: null });
    run.spanOf.set(span.id, span);
  }
  for (const span of run.spans) {
    span.up = (span.parent !== null && run.spanOf.get(span.parent)) || null;
    if (span.up !== null) span.up.children.push(span);
  }
}

// Threads take turns with the colours, in the order in which they appear.
function hueOf(run, span) {
  const flow = `${span.pid} ${span.thread}`;
  if (!run.hues.has(flow)) run.hues.set(flow, run.hues.size % HUES);
  return run.hues.get(flow);
}

function addHandOffs(run) {
  for (const span of run.spans) span.via = run.handOffOf.get(span.hand_off) ?? null;
  for (const each of run.hand_offs) run.spanOf.get(each.origin)?.out.push(each);
}

function addProblems(run) {
  for (const orphan of run.orphans) {
    const span = run.spanOf.get(orphan.span);
    if (span === undefined) continue;
    span.orphan = orphan;
    run.spanOf.get(orphan.origin)?.lost.push(span);
  }
  for (const leak of run.leaks) run.spanOf.get(leak.span)?.leaks.push(leak);
  for (const span of run.spans) {
    span.children.sort(byStart);
    span.family = span.lost.length ? span.children.concat(span.lost).sort(byStart) : span.children;
  }
}

function byStart(one, other) {
  return one.start_ns - other.start_ns;
}

function tracesOf(run) {
  const traces = new Map();
  for (const span of run.spans) {
    if (span.up !== null) continue;
    const id = span.id.slice(0, span.id.indexOf(":"));
    if (!traces.has(id)) traces.set(id, { id, roots: [], open: false, zoom: null });
    traces.get(id).roots.push(span);
  }
  const all = [...traces.values()];
  for (const trace of all) completeTrace(trace);
  return all.sort((one, other) => one.start - other.start);
}

// Spans in the order in which they are drawn, and what is said about all of them.
function completeTrace(trace) {
  trace.roots.sort(byStart);
  trace.spans = [];
  const flows = new Set();
  const sum = { handOffs: 0, orphans: 0, lost: 0, leaks: 0, links: 0, unfinished: 0 };
  const pending = [...trace.roots].reverse();
  while (pending.length > 0) {
    const span = pending.pop();
    span.trace = trace;
    trace.spans.push(span);
    flows.add(`${span.pid} ${span.thread}`);
    sum.handOffs += span.via !== null;
    sum.orphans += span.orphan !== null;
    sum.lost += span.lost.length;
    sum.leaks += span.leaks.length;
    sum.links += span.links.length;
    sum.unfinished += span.end_ns === null;
    for (let last = span.children.length - 1; last >= 0; last--) pending.push(span.children[last]);
  }
  Object.assign(trace, sum, { flows: flows.size, ...extentOf(trace) });
  trace.problems = trace.orphans + trace.lost + trace.leaks;
}

// What was lost here is shown too, unless it came so late that nothing else could be told apart.
function extentOf(trace) {
  let start = Infinity;
  let end = -Infinity;
  for (const span of trace.spans) {
    start = Math.min(start, span.start_ns);
    end = Math.max(end, span.end);
  }
  const latest = start + 4 * Math.max(end - start, 1);
  let shown = end;
  for (const span of trace.spans) {
    for (const lost of span.lost) shown = Math.max(shown, Math.min(lost.end, latest));
  }
  return { start, end, shown };
}

// Enough to fill a screen or two; the rest, and traces of one span, are a line each.
function openFirst(traces) {
  let rows = traces.length;
  for (const trace of traces) {
    rows += trace.spans.length;
    if (rows > 400 && trace !== traces[0]) return;
    trace.open = trace.spans.length > 1 || traces.length === 1;
  }
}

const SORTS = {
  start: (one, other) => one.start - other.start,
  duration: (one, other) => other.end - other.start - (one.end - one.start),
  spans: (one, other) => other.spans.length - one.spans.length,
  problems: (one, other) => other.problems - one.problems || one.start - other.start,
};

// What a span is found by, in lower case.
function wordsOf(span) {
  span.words ??= allWords(span).toLowerCase();
  return span.words;
}

function allWords(span) {
  const { name, id, thread, task, pid, site, kind, via, orphan } = span;
  let words = `${name}\n${id}\n${thread}\n${task}\n${pid}\n${site}\n${kind}`;
  if (via !== null) words += `\n${via.primitive} ${via.call} ${via.site}`;
  if (orphan !== null) words += `\norphan ${orphan.reason} ${orphan.site}`;
  for (const leak of span.leaks) words += `\nleak ${leak.reason} ${leak.site}`;
  for (const [key, value] of Object.entries(span.attributes)) words += `\n${key}=${text(value)}`;
  return words;
}

function text(value) {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function matching(traces, query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = [];
  for (const trace of traces) {
    for (const span of trace.spans) {
      if (words.every((word) => wordsOf(span).includes(word))) found.push(span);
    }
  }
  return found;
}

// Since Python 3.10 an unnamed thread is called "Thread-1 (target)".
const UNNAMED = /^(Thread-\d+) \(.*\)$/;

// Where a span ran, in a word or two: its task or thread, and its process if it is not the first.
function flowOf(run, span) {
  const flow = span.task || span.thread.replace(UNNAMED, "$1");
  return span.pid === run.firstPid ? flow : `${flow} · ${span.pid}`;
}
