"use strict";
// Reads what is embedded in the page. A table is written by columns; a column is a list of its
// values, or { of: distinct values, at: index of each }, or { traces, spans } for ids of spans,
// which here are one string: "trace:span".

function embeddedReports() {
  const reports = JSON.parse(byId("data").textContent);
  byId("data").remove();
  return reports.map((report) => ({
    ...report,
    processes: records(report.processes),
    spans: records(report.spans),
    hand_offs: records(report.hand_offs),
    orphans: records(report.orphans),
    leaks: records(report.leaks),
    call_sites: records(report.call_sites),
  }));
}

function records(table) {
  const names = Object.keys(table);
  const columns = names.map((name) => values(table[name]));
  const length = columns[0].length;
  const made = new Array(length);
  for (let row = 0; row < length; row++) {
    const record = {};
    for (let each = 0; each < names.length; each++) record[names[each]] = columns[each][row];
    made[row] = record;
  }
  return made;
}

function values(column) {
  if (Array.isArray(column)) return column;
  if (column.spans) return ids(values(column.traces), values(column.spans));
  return column.at.map((index) => column.of[index]);
}

function ids(traces, spans) {
  return spans.map((span, row) => (span === null ? null : idOf(traces[row], span)));
}

function idOf(trace, span) {
  return `${trace}:${span}`;
}
