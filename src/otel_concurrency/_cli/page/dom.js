"use strict";
// Small tools: elements, and numbers in words.

function byId(id) {
  return document.getElementById(id);
}

// element("div", { class: "row", style: { top: "3px" }, onclick: f }, "text", child)
// Text stays text: nothing of a report is ever read as HTML.
function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name === "style") setStyle(made, value);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function setStyle(made, style) {
  for (const [name, value] of Object.entries(style)) made.style.setProperty(name, value);
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// 850 ns, 12 µs, 0.4 ms, 31 ms, 2.5 s, 3 min 20 s
function duration(ns) {
  if (ns === null) return "–";
  if (ns < 1e3) return `${ns} ns`;
  if (ns < 1e5) return `${rounded(ns / 1e3)} µs`;
  if (ns < 1e9) return `${rounded(ns / 1e6)} ms`;
  if (ns < 6e10) return `${rounded(ns / 1e9)} s`;
  const seconds = Math.round(ns / 1e9);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function rounded(number) {
  return number < 9.95 ? number.toFixed(1) : Math.round(number).toString();
}

function many(count, one, more = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : more}`;
}

function number(count) {
  return count.toLocaleString("en");
}

// The file without its folders: /srv/shop/orders.py:41 is orders.py:41.
function shortSite(site) {
  return site === null ? "" : site.slice(Math.max(site.lastIndexOf("/"), site.lastIndexOf("\\")) + 1);
}

// How wide a text is, in pixels, in the page's font of that size.
const pen = document.createElement("canvas").getContext("2d");

function widthOf(text, size) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

// A text without its middle, if it is wider than that: "warehouse-worker-17" is "wareh…r-17".
function middleCut(text, size, most) {
  if (widthOf(text, size) <= most) return text;
  let kept = text.length - 1;
  let cut = text;
  while (kept > 2 && widthOf(cut, size) > most) {
    kept -= 1;
    cut = `${text.slice(0, Math.ceil(kept / 2))}…${text.slice(text.length - Math.floor(kept / 2))}`;
  }
  return cut;
}

function later(delay, action) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, delay);
  };
}
