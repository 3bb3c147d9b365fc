// The values of a chart: at one x as text, and all of them as a table.

const MAX_DISTANCE = 14; // px between a point and the x that is read
const MAX_TABLE_ROWS = 1000;

// For each visible series, the value of the point nearest to x, if it is close enough on the
// screen. A dashed line is interpolated.
function valuesAt(chart, hidden, x, layout) {
  const values = [];
  chart.series.forEach((series, index) => {
    const value = hidden.has(index) ? null : seriesValueAt(chart, series, x, layout);
    if (value !== null) values.push({ index, name: series.name, ...value });
  });
  return values;
}

function seriesValueAt(chart, series, x, layout) {
  const point = nearestPoint(series, x);
  if (point !== null) {
    const distance = Math.abs(layout.x(series.x[point]) - layout.x(x));
    if (distance <= MAX_DISTANCE) {
      const text = valueWithBounds(chart, series, point);
      return { x: series.x[point], y: series.y[point], text };
    }
  }
  if (series.style !== "dashed") return null;
  const y = interpolate(series, x);
  return y === null ? null : { x, y, text: formatValue(y, chart.y_unit) };
}

function nearestPoint(series, x) {
  let nearest = null;
  let smallest = Infinity;
  series.x.forEach((each, index) => {
    if (isMissing(each) || isMissing(series.y[index])) return;
    const distance = Math.abs(each - x);
    if (nearest === null || distance < smallest) {
      nearest = index;
      smallest = distance;
    }
  });
  return nearest;
}

function interpolate(series, x) {
  const after = series.x.findIndex((each) => each >= x);
  const low = series.y[after - 1];
  const high = series.y[after];
  if (isMissing(low) || isMissing(high)) return null;
  const from = series.x[after - 1];
  const span = series.x[after] - from || 1;
  return low + ((high - low) * (x - from)) / span;
}

function valueWithBounds(chart, series, index) {
  const value = formatValue(series.y[index], chart.y_unit);
  const low = series.low[index];
  const high = series.high[index];
  if (isMissing(low) || isMissing(high)) return value;
  const lowText = formatValue(low, chart.y_unit).replace("%", "");
  const highText = formatValue(high, chart.y_unit).replace("%", "");
  return `${value} (${lowText}${low < 0 ? " to " : "–"}${highText})`;
}

function describeValues(chart, x, values) {
  const texts = values.map(({ name, text }) => `${name} ${text}`);
  return `${chart.x_title} ${formatValue(x, chart.x_unit)}: ${texts.join(", ")}`;
}

// A folded table, built when it is opened.
function valuesDetails(chart, title) {
  const summary = createHtml("summary", {}, "Show values as a table");
  const details = createHtml("details", { class: "values" }, summary);
  details.addEventListener("toggle", () => details.append(valuesTable(chart, title)), {
    once: true,
  });
  return details;
}

function valuesTable(chart, title) {
  const rows = valueRows(chart);
  const headers = [chart.x_title || "x", ...chart.series.map((series) => series.name)];
  const headerCells = headers.map((header) => {
    return createHtml("th", { scope: "col" }, nameElement(header));
  });
  const body = createHtml("tbody");
  for (const [x, values] of rows.slice(0, MAX_TABLE_ROWS)) {
    const xText = formatValue(x, chart.x_unit);
    const row = createHtml("tr", {}, createHtml("th", { scope: "row", class: "num" }, xText));
    for (const value of values) row.append(createHtml("td", { class: "num" }, value));
    body.append(row);
  }

  const head = createHtml("thead", {}, createHtml("tr", {}, ...headerCells));
  const table = createHtml("table", { "aria-label": title }, head, body);
  const region = { role: "region", tabindex: "0", "aria-label": `Values of ${title}` };
  const scroller = createHtml("div", { class: "scroller", ...region }, table);
  const remaining = rows.length - MAX_TABLE_ROWS;
  if (remaining <= 0) return scroller;
  const note = createHtml("p", { class: "note" }, `and ${pluralize(remaining, "more row")}`);
  return createHtml("div", {}, scroller, note);
}

// Rows of [x, one text per series], in ascending order of x.
function valueRows(chart) {
  const textsByX = new Map();
  chart.series.forEach((series, seriesIndex) => {
    series.x.forEach((x, index) => {
      if (isMissing(x)) return;
      if (!textsByX.has(x)) textsByX.set(x, Array(chart.series.length).fill(UNKNOWN));
      textsByX.get(x)[seriesIndex] = valueWithBounds(chart, series, index);
    });
  });
  return [...textsByX].sort(([first], [second]) => first - second);
}
