// A chart that is read: a legend that hides lines, values under the pointer or the arrow keys, and all of it as a table.

const NEAR = 14; // pixels within which a point belongs to the place that is pointed at

function buildChart(block) {
  const chart = readData(block.dataset.source);
  const title = block.querySelector("h3").textContent;
  const hidden = new Set();
  const view = { frame: null, at: null, stops: [] };
  const cross = draw("g", { class: "cross" });
  const picture = draw("svg", { "aria-hidden": "true" });
  const readout = make("div", { class: "readout", hidden: true });
  const plot = make("div", { class: "plot", role: "slider", tabindex: "0", "aria-valuemin": "1" }, picture, readout);
  plot.setAttribute("aria-label", `${title}: values along ${chart.x_title || "the axis"}`);

  function redraw() {
    const shown = chart.series.filter((_, place) => !hidden.has(place));
    const frame = frameOf(chart, shown, plot.clientWidth);
    view.frame = frame;
    view.stops = [...new Set(shown.flatMap((series) => series.x.filter((x, index) => x !== null && (series.y[index] ?? null) !== null)))].sort((a, b) => a - b);
    const drawn = chart.series.map((series, place) => (hidden.has(place) ? null : drawSeries(series, place, frame)));
    picture.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    picture.setAttribute("height", frame.height);
    picture.replaceChildren(drawAxes(chart, frame), ...drawn.filter(Boolean), cross);
    plot.setAttribute("aria-valuemax", view.stops.length);
    read(null);
  }

  function read(at) {
    view.at = at;
    const x = at === null ? null : view.stops[at];
    const values = at === null ? [] : valuesAt(chart, hidden, x, view.frame);
    showReadout(chart, readout, cross, view.frame, x, values);
    plot.setAttribute("aria-valuenow", at === null ? 1 : at + 1);
    plot.setAttribute("aria-valuetext", at === null ? "press the arrow keys" : spoken(chart, x, values));
  }

  plot.addEventListener("pointermove", (event) => readNear(event));
  plot.addEventListener("pointerdown", (event) => readNear(event));
  plot.addEventListener("pointerleave", () => read(null));
  plot.addEventListener("blur", () => read(null));
  plot.addEventListener("keydown", (event) => {
    const moved = movedBy(event.key, view.at, view.stops.length);
    if (moved === undefined) return;
    event.preventDefault();
    read(moved);
  });
  function readNear(event) {
    if (!view.stops.length) return;
    const x = view.frame.x.value(event.clientX - plot.getBoundingClientRect().left);
    read(nearest(view.stops, x));
  }

  const legend = makeLegend(chart, hidden, redraw);
  block.querySelector(".place").replaceChildren(...(legend ? [legend] : []), plot, valuesAsTable(chart, title));
  let width = 0;
  new ResizeObserver(() => {
    if (plot.clientWidth !== width && plot.clientWidth > 0) {
      width = plot.clientWidth;
      redraw();
    }
  }).observe(plot);
}

function nearest(sorted, value) {
  let best = 0;
  sorted.forEach((each, index) => {
    if (Math.abs(each - value) < Math.abs(sorted[best] - value)) best = index;
  });
  return best;
}

// The next place for a key; null is none, undefined a key that means nothing here.
function movedBy(key, at, length) {
  if (key === "Escape") return null;
  const last = length - 1;
  const page = Math.max(1, Math.round(length / 10));
  const from = at ?? -1;
  const targets = {
    ArrowRight: from + 1, ArrowUp: from + 1, ArrowLeft: from - 1, ArrowDown: from - 1,
    PageUp: from + page, PageDown: from - page, Home: 0, End: last,
  };
  return key in targets && length ? Math.min(Math.max(targets[key], 0), last) : undefined;
}

// Of each series the point nearest to x, where it lies near enough on the screen.
function valuesAt(chart, hidden, x, frame) {
  const found = [];
  chart.series.forEach((series, place) => {
    if (hidden.has(place)) return;
    let best = -1;
    series.x.forEach((each, index) => {
      if (each === null || (series.y[index] ?? null) === null) return;
      if (best < 0 || Math.abs(each - x) < Math.abs(series.x[best] - x)) best = index;
    });
    if (best < 0 || Math.abs(frame.x(series.x[best]) - frame.x(x)) > NEAR) return;
    const [low, high] = [series.low[best] ?? null, series.high[best] ?? null];
    const bounds = low === null || high === null ? "" : ` (${figureOf(low, chart.y_unit)}–${figureOf(high, chart.y_unit)})`;
    found.push({ place, name: series.name, x: series.x[best], y: series.y[best], text: figureOf(series.y[best], chart.y_unit) + bounds });
  });
  return found;
}

function spoken(chart, x, values) {
  return `${chart.x_title} ${figureOf(x, chart.x_unit)}: ${values.map(({ name, text }) => `${name} ${text}`).join(", ")}`;
}

function showReadout(chart, readout, cross, frame, x, values) {
  readout.hidden = x === null;
  cross.replaceChildren();
  if (x === null) return;
  const left = frame.x(x);
  cross.append(draw("line", { x1: left, x2: left, y1: frame.box.top, y2: frame.box.bottom }));
  for (const { place, x: at, y } of values) {
    cross.append(draw("circle", { cx: frame.x(at), cy: frame.y(y), r: 4.5, class: `series-${place % 7}` }));
  }
  const lines = values.map(({ place, name, text }) =>
    make("div", { class: `line series-${place % 7}` }, make("span", { class: "name" }, nameOf(name)), make("span", { class: "value" }, text)));
  readout.replaceChildren(make("div", { class: "at" }, `${chart.x_title} ${figureOf(x, chart.x_unit)}`), ...lines);
  readout.classList.toggle("leftwards", left > frame.width / 2);
  readout.style.setProperty("--at", `${left}px`);
}

function makeLegend(chart, hidden, redraw) {
  if (chart.series.length === 1 && !chart.series[0].name) return null;
  const entries = chart.series.map((series, place) => {
    const button = make("button", { type: "button", "aria-pressed": "true", class: `series-${place % 7} ${series.style}`, click: toggle }, sample(series, place), nameOf(series.name));
    function toggle() {
      if (!hidden.delete(place)) hidden.add(place);
      button.setAttribute("aria-pressed", !hidden.has(place));
      redraw();
    }
    return make("li", {}, button);
  });
  return make("ul", { class: "legend", "aria-label": "Lines of the chart; press to hide or show" }, ...entries);
}

function sample(series, place) {
  const mark = draw("svg", { width: 26, height: 12, viewBox: "-13 -6 26 12", "aria-hidden": "true" });
  if (series.style !== "points") mark.append(draw("path", { d: "M-12 0H12", class: "line" }));
  if (series.style !== "dashed") mark.append(draw("g", { class: "markers" }, draw("path", { d: SHAPES[place % SHAPES.length] })));
  return mark;
}

const MOST_ROWS = 1000;

function valuesAsTable(chart, title) {
  const details = make("details", { class: "values" }, make("summary", {}, "Values as a table"));
  details.addEventListener("toggle", () => details.append(makeValues(chart, title)), { once: true });
  return details;
}

function makeValues(chart, title) {
  const heads = [chart.x_title || "x", ...chart.series.map((series) => series.name)];
  const places = new Map();
  chart.series.forEach((series, place) =>
    series.x.forEach((x, index) => {
      if (x === null) return;
      if (!places.has(x)) places.set(x, Array(chart.series.length).fill(UNKNOWN));
      const [low, high] = [series.low[index] ?? null, series.high[index] ?? null];
      const bounds = low === null || high === null ? "" : ` (${figureOf(low, chart.y_unit)}–${figureOf(high, chart.y_unit)})`;
      places.get(x)[place] = figureOf(series.y[index], chart.y_unit) + bounds;
    }));
  const rows = [...places].sort(([one], [other]) => one - other);
  const left = rows.length - MOST_ROWS;
  const table = make("table", { "aria-label": title },
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, nameOf(head))))),
    make("tbody", {}, ...rows.slice(0, MOST_ROWS).map(([x, values]) => make("tr", {}, make("th", { scope: "row", class: "n" }, figureOf(x, chart.x_unit)), ...values.map((value) => make("td", { class: "n" }, value))))));
  const scroller = make("div", { class: "scroller", role: "region", tabindex: "0", "aria-label": `Values of ${title}` }, table);
  return left > 0 ? make("div", {}, scroller, make("p", { class: "note" }, `and ${counted(left, "row")} more`)) : scroller;
}
