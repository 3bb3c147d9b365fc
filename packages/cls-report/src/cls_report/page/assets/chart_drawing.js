// A chart's picture: axes, bands, lines, points. A function of the chart, the series that are shown, and the width.

const SHAPES = [
  "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
  "M-3.2-3.2h6.4v6.4h-6.4z",
  "M0-4.4L4.2 3.2h-8.4z",
  "M0-4.6L4.6 0L0 4.6L-4.6 0z",
  "M0 4.4L4.2-3.2h-8.4z",
];

function colourClass(place) {
  return `series-${place % 7}`;
}

function frameOf(chart, shown, width) {
  const height = Math.round(Math.min(Math.max(width * 0.5, 220), 340));
  const values = shown.flatMap((series) => [...series.y, ...series.low, ...series.high]);
  const xs = extent(shown.flatMap((series) => series.x));
  const yTicksWanted = Math.max(3, Math.round(height / 60));
  const yRange = roundRange(extent(values), chart.y_unit, yTicksWanted);
  const yTicks = ticks(yRange, yTicksWanted, chart.y_unit);
  const yTexts = yTicks.map((value) => tickText(value, yTicks[1] - yTicks[0] || 1, chart.y_unit));
  const left = 18 + Math.max(...yTexts.map((text) => text.length)) * 7;
  const box = { left, right: width - 24, top: 26, bottom: height - 42 };
  const xRange = chart.x_unit === "share" && xs[0] >= 0 && xs[1] <= 1 && xs[1] - xs[0] > 0.6 ? [0, 1] : xs;
  const xTicks = ticks(xRange, Math.max(2, Math.round((box.right - box.left) / 90)), chart.x_unit);
  const xTexts = xTicks.map((value) => tickText(value, xTicks[1] - xTicks[0] || 1, chart.x_unit));
  return {
    width,
    height,
    box,
    one: chart.series.length === 1,
    xTicks,
    xTexts,
    yTicks,
    yTexts,
    x: scale(xRange, [box.left, box.right]),
    y: scale(yRange, [box.bottom, box.top]),
  };
}

function drawAxes(chart, frame) {
  const { box, x, y } = frame;
  const axes = draw("g", { class: "axes" });
  frame.yTicks.forEach((value, index) => {
    axes.append(
      draw("line", { x1: box.left, x2: box.right, y1: y(value), y2: y(value), class: index === 0 ? "base" : "grid" }),
      draw("text", { x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, frame.yTexts[index]),
    );
  });
  frame.xTicks.forEach((value, index) => {
    axes.append(
      draw("line", { x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4, class: "base" }),
      draw("text", { x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, frame.xTexts[index]),
    );
  });
  axes.append(
    draw(
      "text",
      { x: box.right, y: frame.height - 6, "text-anchor": "end", class: "title" },
      cut(chart.x_title, frame),
    ),
    draw("text", { x: 0, y: 13, class: "title" }, cut(chart.y_title, frame)),
  );
  return axes;
}

// A title cut to the width of the chart, in letters of about 7 pixels.
function cut(text, { width }) {
  const most = Math.floor(width / 7);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}

// Pieces of a line between its gaps, as lists of indices.
function pieces(series, ...needed) {
  const found = [[]];
  series.x.forEach((x, index) => {
    const whole = x !== null && needed.every((values) => values[index] !== null && values[index] !== undefined);
    if (whole) found.at(-1).push(index);
    else if (found.at(-1).length) found.push([]);
  });
  return found.filter((piece) => piece.length);
}

function path(points) {
  return points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
}

function drawSeries(series, place, frame) {
  const { x, y } = frame;
  const group = draw("g", { class: `${colourClass(place)} ${series.style}` });
  if (series.low.length && series.style !== "points") group.append(drawBand(series, frame));
  const drawn = pieces(series, series.y);
  const line = drawn.map((piece) => path(piece.map((index) => [x(series.x[index]), y(series.y[index])]))).join("");
  if (series.style !== "points") group.append(draw("path", { d: line, class: "line" }));
  const indices = drawn.flat();
  if (series.style === "points" && series.low.length) group.append(drawWhiskers(series, indices, frame));
  group.append(drawMarkers(series, place, markersOf(series, drawn, indices, frame.one), frame));
  return group;
}

// Every point of a scatter; of a line those that stand alone, and a few more by whose shape it is told from others.
function markersOf(series, drawn, indices, one) {
  if (series.style === "points") return indices;
  const alone = drawn.filter((piece) => piece.length === 1).flat();
  const step = Math.ceil(indices.length / 8);
  return series.style === "dashed" || one ? alone : [...alone, ...indices.filter((_, order) => order % step === 0)];
}

function drawMarkers(series, place, indices, { x, y }) {
  const shape = SHAPES[place % SHAPES.length];
  const d = indices.map((index) => ({
    at: `translate(${x(series.x[index]).toFixed(1)} ${y(series.y[index]).toFixed(1)})`,
  }));
  return draw("g", { class: "markers" }, ...d.map(({ at }) => draw("path", { d: shape, transform: at })));
}

function drawBand(series, { x, y }) {
  const d = pieces(series, series.low, series.high).map((piece) => {
    const over = piece.map((index) => [x(series.x[index]), y(series.high[index])]);
    const under = piece.map((index) => [x(series.x[index]), y(series.low[index])]).reverse();
    return `${path([...over, ...under])}Z`;
  });
  return draw("path", { d: d.join(""), class: "band" });
}

function drawWhiskers(series, indices, { x, y }) {
  const whole = indices.filter(
    (index) => (series.low[index] ?? null) !== null && (series.high[index] ?? null) !== null,
  );
  const d = whole.map((index) =>
    path([
      [x(series.x[index]), y(series.low[index])],
      [x(series.x[index]), y(series.high[index])],
    ]),
  );
  return draw("path", { d: d.join(""), class: "whiskers" });
}
