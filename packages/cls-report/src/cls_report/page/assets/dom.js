// Elements, data and laziness. Text reaches the page as text nodes and attributes alone, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== false && value !== undefined)
      node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

// A name in whatever direction it is written; one without a visible sign is said to be so, as in blocks.html.
function nameOf(text) {
  return text.trim() ? make("bdi", {}, text) : make("span", { class: "empty" }, wordOf(text));
}

function wordOf(text) {
  return text.trim() ? text : text === "" ? "(empty)" : "(blank)";
}

// A path, which may break after its folders.
function pathOf(text) {
  const parts = text.split("/").map((part, index) => (index ? ["/", make("wbr"), part] : [part]));
  return make("bdi", {}, ...parts.flat());
}

let identifiers = 0;
function newId() {
  identifiers += 1;
  return `page.made-${identifiers}`;
}

function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

let pictures = null;
function pictureAt(place) {
  pictures ??= readData("page.pictures");
  return pictures[place];
}

// Builders of what is far from the screen: each runs once, when its place comes near, or before printing.
const waiting = new Map();
const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) if (entry.isIntersecting) buildNow(entry.target);
  },
  { rootMargin: "600px" },
);

function buildLater(node, build) {
  waiting.set(node, build);
  observer.observe(node);
}

function buildNow(node) {
  const build = waiting.get(node);
  waiting.delete(node);
  observer.unobserve(node);
  build?.(node);
}

addEventListener("beforeprint", () => [...waiting.keys()].forEach(buildNow));

function onThemeChange(react) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", react);
  document.addEventListener("themechange", react);
}

// A custom property as a color [red, green, blue], for canvases, which know no custom properties.
function colourOf(property) {
  const probe = document.body.appendChild(make("span", { style: `color: var(${property}); display: none` }));
  const color = getComputedStyle(probe)
    .color.match(/[\d.]+/g)
    .slice(0, 3)
    .map(Number);
  probe.remove();
  return color;
}
