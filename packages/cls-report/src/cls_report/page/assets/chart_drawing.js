// Draw a chart as SVG: axes, bands, lines, and markers.

const MARKER_SHAPES = [
  "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
  "M-3.2-3.2h6.4v6.4h-6.4z",
  "M0-4.4L4.2 3.2h-8.4z",
  "M0-4.6L4.6 0L0 4.6L-4.6 0z",
  "M0 4.4L4.2-3.2h-8.4z",
];
const SERIES_COLORS = 7;
const CHARACTER_WIDTH = 7; // px, approximately
const MARKERS_PER_LINE = 8;

function seriesColorClass(index) {
  return `series-${index % SERIES_COLORS}`;
}

// Sizes, scales, and ticks of a chart that displays the given series.
function chartLayout(chart, visibleSeries, width) {
  const height = Math.round(Math.min(Math.max(width * 0.5, 220), 340));
  const xValues = visibleSeries.flatMap((series) => series.x);
  const yValues = visibleSeries.flatMap((series) => [...series.y, ...series.low, ...series.high]);

  const yTickCount = Math.max(3, Math.round(height / 60));
  const yRange = roundRange(valueRange(yValues), chart.y_unit, yTickCount);
  const yTicks = labeledTicks(yRange, yTickCount, chart.y_unit);
  const labelLength = Math.max(...yTicks.map((tick) => tick.label.length));

  const left = 18 + labelLength * CHARACTER_WIDTH;
  const box = { left, right: width - 24, top: 26, bottom: height - 42 };
  const xRange = chartXRange(valueRange(xValues), chart.x_unit);
  const xTickCount = Math.max(2, Math.round((box.right - box.left) / 90));
  return {
    width,
    height,
    box,
    isSingle: chart.series.length === 1,
    xTicks: labeledTicks(xRange, xTickCount, chart.x_unit),
    yTicks,
    x: linearScale(xRange, [box.left, box.right]),
    y: linearScale(yRange, [box.bottom, box.top]),
  };
}

function chartXRange([low, high], unit) {
  const isWideShare = unit === "share" && low >= 0 && high <= 1 && high - low > 0.6;
  return isWideShare ? [0, 1] : [low, high];
}

function labeledTicks(range, count, unit) {
  const values = axisTicks(range, count, unit);
  const step = values[1] - values[0] || 1;
  return values.map((value) => ({ value, label: formatTick(value, step, unit) }));
}

function drawAxes(chart, layout) {
  const { box, x, y, width, height } = layout;
  const axes = createSvg("g", { class: "axes" });

  layout.yTicks.forEach(({ value, label }, index) => {
    const at = y(value);
    const line = { x1: box.left, x2: box.right, y1: at, y2: at };
    axes.append(
      createSvg("line", { ...line, class: index === 0 ? "base" : "grid" }),
      createSvg("text", { x: box.left - 8, y: at + 4, "text-anchor": "end" }, label),
    );
  });

  for (const { value, label } of layout.xTicks) {
    const at = x(value);
    const line = { x1: at, x2: at, y1: box.bottom, y2: box.bottom + 4 };
    axes.append(
      createSvg("line", { ...line, class: "base" }),
      createSvg("text", { x: at, y: box.bottom + 18, "text-anchor": "middle" }, label),
    );
  }

  const xTitle = { x: box.right, y: height - 6, "text-anchor": "end", class: "title" };
  axes.append(
    createSvg("text", xTitle, truncate(chart.x_title, width)),
    createSvg("text", { x: 0, y: 13, class: "title" }, truncate(chart.y_title, width)),
  );
  return axes;
}

function truncate(text, width) {
  const maxLength = Math.floor(width / CHARACTER_WIDTH);
  return text.length > maxLength ? `${text.slice(0, maxLength - 1)}…` : text;
}

// Split the indices of a series at gaps: points where x or one of the other values is missing.
function splitAtGaps(series, ...valueLists) {
  const pieces = [];
  let piece = [];
  series.x.forEach((x, index) => {
    const values = [x, ...valueLists.map((list) => list[index])];
    if (!values.some(isMissing)) {
      piece.push(index);
    } else if (piece.length) {
      pieces.push(piece);
      piece = [];
    }
  });
  if (piece.length) pieces.push(piece);
  return pieces;
}

function linePath(points) {
  const commands = points.map(([x, y], index) => {
    const command = index === 0 ? "M" : "L";
    return `${command}${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  return commands.join("");
}

function drawSeries(series, index, layout) {
  const group = createSvg("g", { class: `${seriesColorClass(index)} ${series.style}` });
  const pieces = splitAtGaps(series, series.y);
  const points = pieces.flat();
  const hasBounds = series.low.length > 0;

  if (series.style === "points") {
    if (hasBounds) group.append(drawErrorBars(series, points, layout));
    group.append(drawMarkers(series, index, points, layout));
    return group;
  }
  if (hasBounds) group.append(drawBand(series, layout));
  group.append(drawLine(series, pieces, layout));
  const markers = lineMarkers(series, pieces, layout.isSingle);
  group.append(drawMarkers(series, index, markers, layout));
  return group;
}

function drawLine(series, pieces, { x, y }) {
  const paths = pieces.map((piece) => {
    return linePath(piece.map((index) => [x(series.x[index]), y(series.y[index])]));
  });
  return createSvg("path", { d: paths.join(""), class: "line" });
}

// Isolated points, which have no line; and some points whose shape distinguishes the line.
function lineMarkers(series, pieces, isSingle) {
  const isolated = pieces.filter((piece) => piece.length === 1).flat();
  if (series.style === "dashed" || isSingle) return isolated;
  const points = pieces.flat();
  const step = Math.ceil(points.length / MARKERS_PER_LINE);
  return [...isolated, ...points.filter((_, order) => order % step === 0)];
}

function drawMarkers(series, index, points, { x, y }) {
  const shape = MARKER_SHAPES[index % MARKER_SHAPES.length];
  const group = createSvg("g", { class: "markers" });
  for (const point of points) {
    const left = x(series.x[point]).toFixed(1);
    const top = y(series.y[point]).toFixed(1);
    group.append(createSvg("path", { d: shape, transform: `translate(${left} ${top})` }));
  }
  return group;
}

function drawBand(series, { x, y }) {
  const paths = splitAtGaps(series, series.low, series.high).map((piece) => {
    const upper = piece.map((index) => [x(series.x[index]), y(series.high[index])]);
    const lower = piece.map((index) => [x(series.x[index]), y(series.low[index])]);
    return `${linePath([...upper, ...lower.reverse()])}Z`;
  });
  return createSvg("path", { d: paths.join(""), class: "band" });
}

function drawErrorBars(series, points, { x, y }) {
  const paths = [];
  for (const point of points) {
    const low = series.low[point];
    const high = series.high[point];
    if (isMissing(low) || isMissing(high)) continue;
    const at = x(series.x[point]);
    paths.push(linePath([[at, y(low)], [at, y(high)]]));
  }
  return createSvg("path", { d: paths.join(""), class: "error-bars" });
}
