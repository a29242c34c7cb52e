"use strict";
// What is known of one span, or of one trace, beside the waterfall.

function showDetails(row, focus = false) {
  const details = byId("details");
  details.hidden = false;
  details.replaceChildren(...(row.span ? aboutSpan(view.run, row.span) : aboutTrace(row.trace)));
  details.scrollTop = 0;
  if (focus) details.focus();
}

function closeDetails() {
  byId("details").hidden = true;
}

function panelHead(words, kind) {
  const close = () => {
    closeDetails();
    byId("tree").focus();
  };
  return element(
    "header",
    {},
    element("div", {}, element("small", {}, kind), element("h2", {}, words)),
    element("button", { type: "button", class: "close", "aria-label": "Close the details", onclick: close }, "×"),
  );
}

function aboutTrace(trace) {
  return [
    panelHead(titleOf(trace), "trace"),
    facts([
      ["Took", duration(trace.end - trace.start)],
      ["Spans", number(trace.spans.length)],
      ["Flows", number(trace.flows)],
      ["Hand-offs to its spans", number(trace.handOffs)],
      ["Links", number(trace.links)],
      ["Did not end", trace.unfinished ? number(trace.unfinished) : null],
      ["Trace", code(trace.id)],
    ]),
  ];
}

function aboutSpan(run, span) {
  const [trace, id] = span.id.split(":");
  return [
    panelHead(span.name, "span"),
    span.orphan && problem("bad", "Orphan", span.orphan, originLink(run, span.orphan.origin)),
    ...span.leaks.map((leak) => problem("warn", isWrong(span) ? "Wrong parent" : "Leak", leak)),
    facts([
      ["Took", lengthOf(span)],
      ["Started", `${duration(span.start_ns - span.trace.start)} into its trace`],
      ["Where", span.site && code(span.site)],
      ["Thread", span.thread],
      ["Task", span.task],
      ["Process", span.pid ? String(span.pid) : null],
      ["Kind", span.kind === "INTERNAL" ? null : span.kind],
      ["Status", span.status === "UNSET" ? null : span.status],
      ["Parent", span.up ? spanLink(span.up) : span.parent && code(span.parent.split(":")[1])],
      ["Trace", code(trace)],
      ["Span", code(id)],
    ]),
    span.via && part("Got here by", handOffCard(run, span.via)),
    span.links.length > 0 && part(many(span.links.length, "link"), ...linkCards(run, span.links)),
    span.out.length > 0 && handedOff(run, span),
    Object.keys(span.attributes).length > 0 &&
      part("Attributes", facts(Object.entries(span.attributes).map(([name, value]) => [name, text(value)]))),
  ].filter(Boolean);
}

function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element(
    "dl",
    { class: "facts" },
    ...shown.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
}

function part(title, ...children) {
  return element("section", {}, element("h3", {}, title), ...children);
}

function code(words) {
  return element("code", {}, words);
}

function spanLink(span) {
  const go = () => goToSpan(span);
  return element("button", { type: "button", class: "to", onclick: go }, span.name);
}

function originLink(run, id) {
  const origin = run.spanOf.get(id);
  return origin ? element("p", {}, "Its parent should have been ", spanLink(origin), ".") : null;
}

function problem(kind, title, { words, advice, site }, ...more) {
  return element(
    "section",
    { class: `problem ${kind}` },
    element("h3", {}, title),
    element("p", {}, words),
    advice ? element("p", { class: "advice" }, advice) : null,
    site ? element("p", {}, code(site)) : null,
    ...more,
  );
}

function handOffCard(run, handOff) {
  const origin = run.spanOf.get(handOff.origin);
  return facts([
    ["Hand-off", `${handOff.call}`],
    ["Primitive", handOff.policy === "parent" ? handOff.primitive : `${handOff.primitive}, ${handOff.policy}`],
    ["Where", code(handOff.site)],
    ["Resumed", handOff.to_site && code(handOff.to_site)],
    ["From", origin ? spanLink(origin) : null],
    ["On", handOff.thread],
    ["Waited", handOff.attached_ns === null ? "was not picked up" : duration(waitOf(handOff))],
    ["Context", handOff.carried ? "carried" : "not carried"],
  ]);
}

function handedOff(run, span) {
  const shown = span.out.slice(0, 50);
  const items = shown.map((each) =>
    element("li", {}, each.call, " ", code(shortSite(each.site)), ` ${fateOf(each)}`),
  );
  const more = span.out.length - shown.length;
  return part(
    `Handed off ${number(span.out.length)}`,
    element("ul", { class: "plain" }, ...items),
    more > 0 ? element("p", { class: "dim" }, `and ${number(more)} more`) : null,
  );
}

function fateOf(handOff) {
  if (handOff.attached_ns === null) return handOff.carried ? "was not picked up" : "carried no context";
  const to = handOff.to_thread ? ` by ${handOff.to_thread}` : "";
  return `picked up${to} after ${duration(waitOf(handOff))}`;
}

// A batch may have thousands.
function linkCards(run, links) {
  const cards = (some) => some.map((link) => linkCard(run, link));
  const rest = links.slice(FEW);
  if (rest.length === 0) return cards(links);
  const more = element("button", { type: "button", class: "more" }, `and ${number(rest.length)} more`);
  more.addEventListener("click", () => {
    const [first, ...others] = cards(rest.slice(0, 500));
    more.replaceWith(first, ...others);
    first.querySelector("button")?.focus();
  });
  return [...cards(links.slice(0, FEW)), more];
}

const FEW = 5;

function linkCard(run, link) {
  const target = run.spanOf.get(idOf(...link.to));
  const why = [link.reason, link.primitive].filter(Boolean).join(", ");
  const to = target ? spanLink(target) : code(`span ${link.to[1]}`);
  return element("p", {}, "→ ", to, why ? element("span", { class: "dim" }, ` ${why}`) : null);
}
