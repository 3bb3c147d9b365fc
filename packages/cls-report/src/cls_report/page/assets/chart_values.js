// The values of a chart: at one place, as words, and all of them as a table.

const NEAR = 14; // pixels within which a point belongs to the place that is pointed at
const MOST_ROWS = 1000;

// Of each series the point nearest to x, where it lies near enough on the screen; of a dashed one what its line says.
function valuesAt(chart, hidden, x, frame) {
  const found = [];
  chart.series.forEach((series, place) => {
    if (hidden.has(place)) return;
    const near = nearestPoint(series, x);
    if (near !== null && Math.abs(frame.x(series.x[near]) - frame.x(x)) <= NEAR) {
      found.push({
        place,
        name: series.name,
        x: series.x[near],
        y: series.y[near],
        text: withBounds(chart, series, near),
      });
    } else if (series.style === "dashed") {
      const y = onLine(series, x);
      if (y !== null) found.push({ place, name: series.name, x, y, text: figureOf(y, chart.y_unit) });
    }
  });
  return found;
}

function nearestPoint(series, x) {
  let best = null;
  series.x.forEach((each, index) => {
    if (each === null || (series.y[index] ?? null) === null) return;
    if (best === null || Math.abs(each - x) < Math.abs(series.x[best] - x)) best = index;
  });
  return best;
}

function onLine(series, x) {
  const after = series.x.findIndex((each) => each >= x);
  const [low, high] = [series.y[after - 1] ?? null, series.y[after] ?? null];
  if (low === null || high === null) return null;
  const [from, to] = [series.x[after - 1], series.x[after]];
  return low + ((high - low) * (x - from)) / (to - from || 1);
}

function withBounds(chart, series, index) {
  const value = figureOf(series.y[index], chart.y_unit);
  const bounds = [series.low[index] ?? null, series.high[index] ?? null];
  if (bounds.includes(null)) return value;
  const bare = bounds.map((bound) => figureOf(bound, chart.y_unit).replace("\u202f%", ""));
  return `${value} (${bare.join(bounds[0] < 0 ? " to " : "–")})`;
}

function spoken(chart, x, values) {
  return `${chart.x_title} ${figureOf(x, chart.x_unit)}: ${values.map(({ name, text }) => `${name} ${text}`).join(", ")}`;
}

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
      places.get(x)[place] = withBounds(chart, series, index);
    }),
  );
  const rows = [...places].sort(([one], [other]) => one - other);
  const left = rows.length - MOST_ROWS;
  const table = make(
    "table",
    { "aria-label": title },
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, nameOf(head))))),
    make(
      "tbody",
      {},
      ...rows
        .slice(0, MOST_ROWS)
        .map(([x, values]) =>
          make(
            "tr",
            {},
            make("th", { scope: "row", class: "n" }, figureOf(x, chart.x_unit)),
            ...values.map((value) => make("td", { class: "n" }, value)),
          ),
        ),
    ),
  );
  const scroller = make(
    "div",
    { class: "scroller", role: "region", tabindex: "0", "aria-label": `Values of ${title}` },
    table,
  );
  return left > 0
    ? make("div", {}, scroller, make("p", { class: "note" }, `and ${counted(left, "row")} more`))
    : scroller;
}
