// Elements, page data, and deferred building. Text enters the page as text nodes and attributes
// only, never as markup.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

function createHtml(tag, attributes = {}, ...children) {
  return fillElement(document.createElement(tag), attributes, children);
}

function createSvg(tag, attributes = {}, ...children) {
  return fillElement(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

// A function becomes an event listener, true an empty attribute; null and false are left out.
function fillElement(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") {
      element.addEventListener(name, value);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

// A name, whatever its writing direction. Keep in sync with the macro `name` in blocks.html.
function nameElement(text) {
  if (text.trim()) return createHtml("bdi", {}, text);
  return createHtml("span", { class: "empty" }, visibleName(text));
}

function visibleName(text) {
  if (text === "") return "(empty)";
  return text.trim() ? text : "(blank)";
}

// A file path that may wrap after its folders.
function pathElement(path) {
  const element = createHtml("bdi");
  path.split("/").forEach((part, index) => {
    if (index > 0) element.append("/", createHtml("wbr"));
    element.append(part);
  });
  return element;
}

let lastId = 0;
function newId() {
  lastId += 1;
  return `page.script-${lastId}`;
}

function readData(id) {
  return JSON.parse(document.getElementById(id).textContent);
}

let imageUrls = null;
function imageUrl(index) {
  imageUrls ??= readData("page.images");
  return imageUrls[index];
}

// Blocks that are built when they come near the screen, or before printing.
const pendingBuilds = new Map();
const nearObserver = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting) buildNow(entry.target);
    }
  },
  { rootMargin: "600px" },
);

function buildWhenNear(element, build) {
  pendingBuilds.set(element, build);
  nearObserver.observe(element);
}

function buildNow(element) {
  const build = pendingBuilds.get(element);
  pendingBuilds.delete(element);
  nearObserver.unobserve(element);
  build?.(element);
}

addEventListener("beforeprint", () => [...pendingBuilds.keys()].forEach(buildNow));

function onThemeChange(listener) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", listener);
  document.addEventListener("themechange", listener);
}

// A custom property as [red, green, blue], because a canvas does not resolve custom properties.
function resolveColor(property) {
  const probe = createHtml("span", { style: `color: var(${property}); display: none` });
  document.body.append(probe);
  const numbers = getComputedStyle(probe).color.match(/[\d.]+/g);
  probe.remove();
  return numbers.slice(0, 3).map(Number);
}
