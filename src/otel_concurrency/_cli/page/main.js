"use strict";
// Starts the page, and holds its parts together: runs, views, search, theme.

const VIEWS = ["compare", "traces", "problems", "sites", "processes"];
const THEMES = { auto: "◐ Auto", light: "☀ Light", dark: "☾ Dark" };

// --- runs ------------------------------------------------------------------------------------------

function choose(runs, index) {
  const run = runs[index];
  showHead(run);
  showTabs(run);
  showRun(run);
  showProblems(run);
  showSites(run);
  showProcesses(run);
  showDropped(run);
  const buttons = byId("runs").querySelectorAll("button");
  buttons.forEach((button, each) => button.setAttribute("aria-pressed", each === index));
}

function showOneRun(runs, index) {
  choose(runs, index);
  if (!byId("compare").hidden) showView("traces");
}

function runButton(runs, index) {
  const run = runs[index];
  const orphans = many(run.orphans.length, "orphan");
  return element(
    "button",
    { type: "button", class: run.orphans.length ? "bad" : "", onclick: () => showOneRun(runs, index) },
    element("b", {}, run.title || (run.library ? "library on" : "library off")),
    element("small", {}, `${many(run.traces.length, "trace")}, ${orphans}`),
  );
}

function showHead(run) {
  byId("command").textContent = run.command.join(" ") || "otel-concurrency";
  const facts = [
    run.library ? "library on" : "library off",
    new Date(run.started_ms).toLocaleString(),
    duration(run.length_ns),
    many(run.spans.length, "span"),
    many(run.hand_offs.length, "hand-off"),
    run.exit_status ? `exit status ${run.exit_status}` : null,
  ];
  byId("facts").textContent = facts.filter(Boolean).join(" · ");
}

function showTabs(run) {
  const problems = run.orphans.length + sum(run.leaks);
  const counts = {
    traces: run.traces.length,
    problems,
    sites: run.call_sites.length,
    processes: run.processes.length,
  };
  for (const name of Object.keys(counts)) {
    const tab = byId(`tab-${name}`);
    tab.querySelector(".count")?.remove();
    tab.append(element("span", { class: "count" }, number(counts[name])));
  }
  byId("tab-problems").classList.toggle("bad", problems > 0);
}

function showDropped(run) {
  const kinds = Object.entries(run.dropped).filter(([, count]) => count > 0);
  const words = kinds.map(([kind, count]) => `${number(count)} ${kind.replace("_", "-")}`);
  byId("dropped").hidden = words.length === 0;
  const list = new Intl.ListFormat("en").format(words);
  byId("dropped").textContent = `More was seen than is kept: ${list} are not shown here.`;
}

// --- views -----------------------------------------------------------------------------------------

function showView(name) {
  for (const each of VIEWS) {
    const chosen = each === name;
    byId(each).hidden = !chosen;
    byId(`tab-${each}`).setAttribute("aria-selected", chosen);
    byId(`tab-${each}`).tabIndex = chosen ? 0 : -1;
  }
  if (name === "traces") measure();
  if (name === "compare") paintComparison();
}

function moveAlongTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const views = VIEWS.filter((name) => !byId(`tab-${name}`).hidden);
  const at = views.findIndex((name) => `tab-${name}` === event.target.id);
  const name = views[(at + step + views.length) % views.length];
  showView(name);
  byId(`tab-${name}`).focus();
}

function goToSpan(span) {
  showView("traces");
  reveal(span);
  showDetails(view.rows[view.current]);
  byId("tree").focus();
}

function searchFor(words) {
  showView("traces");
  byId("search").value = words;
  search(words);
  byId("search").focus();
}

// --- theme -----------------------------------------------------------------------------------------

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = THEMES[theme];
  byId("theme").setAttribute("aria-label", `Theme: ${theme}`);
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const now = document.documentElement.dataset.theme ?? "auto";
  setTheme(names[(names.indexOf(now) + 1) % names.length]);
}

// --- start -----------------------------------------------------------------------------------------

function pressSearchKey(event) {
  if (event.key === "Enter") goToMatch(event.shiftKey ? -1 : 1);
  if (event.key === "Escape") clearSearch();
  if (event.key === "ArrowDown") byId("tree").focus();
}

function pressAnywhere(event) {
  if (event.target.closest("input, select") || event.ctrlKey || event.metaKey) return;
  if (event.key === "/") {
    event.preventDefault();
    showView("traces");
    byId("search").focus();
  }
  if (event.key === "Escape" && !byId("details").hidden) {
    closeDetails();
    byId("tree").focus();
  }
}

function toggleHelp() {
  byId("keys").hidden = !byId("keys").hidden;
  byId("help").setAttribute("aria-expanded", !byId("keys").hidden);
}

function listen() {
  byId("search").addEventListener("input", later(120, () => search(byId("search").value)));
  byId("search").addEventListener("keydown", pressSearchKey);
  byId("next").addEventListener("click", () => goToMatch(1));
  byId("previous").addEventListener("click", () => goToMatch(-1));
  byId("fold").addEventListener("click", () => setAllOpen(false));
  byId("unfold").addEventListener("click", () => setAllOpen(true));
  byId("help").addEventListener("click", toggleHelp);
  byId("theme").addEventListener("click", nextTheme);
  byId("sort").addEventListener("change", () => {
    view.sort = byId("sort").value;
    search(view.query);
  });
  for (const name of VIEWS) byId(`tab-${name}`).addEventListener("click", () => showView(name));
  byId("tabs").addEventListener("keydown", moveAlongTabs);
  document.addEventListener("keydown", pressAnywhere);
}

function start() {
  const runs = embeddedReports().map(makeRun);
  if (runs.length > 1) byId("runs").append(...runs.map((_, index) => runButton(runs, index)));
  setTheme("auto");
  listen();
  startWaterfall();
  measure();
  choose(runs, 0);
  showComparison(runs);
  showView(runs.length > 1 ? "compare" : "traces");
  document.documentElement.dataset.ready = "";
}

start();
