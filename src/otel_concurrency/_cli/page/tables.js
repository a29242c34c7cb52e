"use strict";
// The views beside the waterfall: problems, call sites, processes.

const MOST = 2000; // rows of a table
const SHOWN = 5; // spans of a problem

// --- orphans and leaks -----------------------------------------------------------------------------

function showProblems(run) {
  const orphans = alike(run.orphans);
  const leaks = alike(run.leaks);
  byId("problems").replaceChildren(
    ...(orphans.length + leaks.length === 0
      ? [element("p", { class: "fine" }, element("b", {}, "✓"), " No orphans and no leaks.")]
      : []),
    ...problemList("bad", "Orphans", run, orphans, run.orphans.length),
    ...problemList("warn", "Leaks", run, leaks, sum(run.leaks)),
  );
}

function sum(problems) {
  return problems.reduce((total, each) => total + (each.count ?? 1), 0);
}

// Those with the same cause, put together; the most frequent first.
function alike(problems) {
  const groups = new Map();
  for (const each of problems) {
    const cause = `${each.reason} ${each.site ?? each.words}`;
    if (!groups.has(cause)) groups.set(cause, []);
    groups.get(cause).push(each);
  }
  return [...groups.values()].sort((one, other) => sum(other) - sum(one));
}

function problemList(kind, title, run, groups, total) {
  if (groups.length === 0) return [];
  const cards = groups.slice(0, MOST).map((group) => problemCard(kind, run, group));
  return [element("h2", {}, title, element("span", { class: "count" }, number(total))), ...cards];
}

function problemCard(kind, run, group) {
  const [first] = group;
  const total = sum(group);
  const spans = group.map((each) => run.spanOf.get(each.span)).filter(Boolean);
  return element(
    "article",
    { class: `problem ${kind}` },
    element("p", { class: "what" }, total > 1 ? element("b", { class: "times" }, `${number(total)} ×`) : null, first.words),
    first.advice ? element("p", { class: "advice" }, first.advice) : null,
    element(
      "footer",
      {},
      first.site ? code(first.site) : null,
      element("span", { class: "dim" }, first.reason),
      ...spans.slice(0, SHOWN).map(spanLink),
      spans.length > SHOWN ? element("span", { class: "dim" }, `and ${number(spans.length - SHOWN)} more`) : null,
    ),
  );
}

// --- call sites ------------------------------------------------------------------------------------

const COLUMNS = [
  { title: "Call", of: (each) => each.call, cell: (each) => each.call },
  { title: "Where", of: (each) => each.site, cell: (each) => siteButton(each.site) },
  { title: "Primitive", of: (each) => each.primitive, cell: (each) => each.primitive },
  { title: "Hand-offs", of: (each) => each.count, cell: (each) => number(each.count) },
  { title: "With context", of: (each) => each.with_context, cell: (each) => number(each.with_context) },
  { title: "Without", of: (each) => each.count - each.with_context, cell: (each) => withoutCell(each) },
  { title: "Wait p50", of: (each) => each.wait_p50_ns ?? -1, cell: (each) => duration(each.wait_p50_ns) },
  { title: "p95", of: (each) => each.wait_p95_ns ?? -1, cell: (each) => duration(each.wait_p95_ns) },
  { title: "max", of: (each) => each.wait_max_ns ?? -1, cell: (each) => waitCell(each) },
];

const sites = { run: null, column: 3, down: true, longest: 1 };

function showSites(run) {
  sites.run = run;
  sites.longest = run.call_sites.reduce((most, each) => Math.max(most, each.wait_max_ns ?? 0), 1);
  byId("sites").replaceChildren(run.call_sites.length ? sitesTable() : element("p", { class: "empty" }, "No hand-offs were seen."));
}

function sitesTable() {
  const head = COLUMNS.map((column, index) => {
    const sorted = index === sites.column;
    const order = sorted ? (sites.down ? "descending" : "ascending") : null;
    const button = element("button", { type: "button", onclick: () => sortSites(index) }, column.title, sorted ? (sites.down ? " ↓" : " ↑") : "");
    return element("th", { scope: "col", class: numeric(index), "aria-sort": order }, button);
  });
  const rows = sortedSites().slice(0, MOST).map((each) =>
    element("tr", {}, ...COLUMNS.map((column, index) => cellOf(column, index, each))),
  );
  return table(head, rows);
}

function cellOf(column, index, each) {
  return element("td", { class: numeric(index), "data-title": column.title }, column.cell(each));
}

function numeric(index) {
  return index > 2 ? "number" : null;
}

function table(head, rows) {
  return element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

function sortSites(column) {
  sites.down = column === sites.column ? !sites.down : column > 2;
  sites.column = column;
  showSites(sites.run);
  byId("sites").querySelectorAll("th button")[column].focus();
}

function sortedSites() {
  const { of } = COLUMNS[sites.column];
  const compare = (one, other) => (of(one) < of(other) ? -1 : of(one) > of(other) ? 1 : 0);
  const sorted = [...sites.run.call_sites].sort(compare);
  return sites.down ? sorted.reverse() : sorted;
}

function siteButton(site) {
  const find = () => searchFor(site);
  return element("button", { type: "button", class: "to", title: `Search for ${site}`, onclick: find }, code(withoutFolder(site)));
}

// What is installed is known by its package.
function withoutFolder(site) {
  return site.replace(/^.*[\\/]site-packages[\\/]/, "");
}

function withoutCell(each) {
  const without = each.count - each.with_context;
  return without === 0 ? element("span", { class: "dim" }, "0") : element("b", {}, number(without));
}

function waitCell(each) {
  if (each.wait_max_ns === null) return "–";
  const width = `${(100 * each.wait_max_ns) / sites.longest}%`;
  return element("span", { class: "wait" }, duration(each.wait_max_ns), element("i", { style: { width } }));
}

// --- processes -------------------------------------------------------------------------------------

function showProcesses(run) {
  const titles = ["Process", "Parent", "Command", "Started", "Lifetime"];
  const head = titles.map((title) => element("th", { scope: "col" }, title));
  const rows = run.processes.slice(0, MOST).map((each) => processRow(run, each, titles));
  byId("processes").replaceChildren(table(head, rows));
}

function processRow(run, each, titles) {
  const length = Math.max(run.length_ns, 1);
  const lived = (each.ended_ns ?? length) - each.started_ns;
  const left = Math.max((100 * each.started_ns) / length, 0);
  const width = Math.min((100 * lived) / length, 100 - left);
  const bar = element("i", { style: { "margin-left": `${left}%`, width: `${width}%` } });
  const cells = [
    String(each.pid),
    each.parent_pid === null ? "–" : String(each.parent_pid),
    code(each.command),
    `after ${duration(Math.max(each.started_ns, 0))}`,
    element("span", {}, duration(lived), element("span", { class: "life" }, bar)),
  ];
  return element("tr", {}, ...cells.map((cell, index) => element("td", { "data-title": titles[index] }, cell)));
}
