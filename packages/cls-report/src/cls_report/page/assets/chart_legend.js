// A chart's legend. A click on an entry hides or shows its line.

function createLegend(chart, hidden, redraw) {
  const isSingle = chart.series.length === 1;
  if (isSingle && !chart.series[0].name) return null;
  const legend = createHtml("ul", { class: "legend", "aria-label": "Lines of the chart" });
  chart.series.forEach((series, index) => {
    const content = [legendSample(series, index, isSingle), nameElement(series.name)];
    const attributes = { class: `entry ${seriesColorClass(index)} ${series.style}` };
    const entry = isSingle
      ? createHtml("span", attributes, ...content)
      : legendButton(attributes, content, hidden, index, redraw);
    legend.append(createHtml("li", {}, entry));
  });
  return legend;
}

function legendButton(attributes, content, hidden, index, redraw) {
  const button = createHtml(
    "button",
    { type: "button", "aria-pressed": "true", title: "Hide or show this line", ...attributes },
    ...content,
  );
  button.addEventListener("click", () => {
    if (!hidden.delete(index)) hidden.add(index);
    button.setAttribute("aria-pressed", !hidden.has(index));
    redraw();
  });
  return button;
}

function legendSample(series, index, isSingle) {
  const size = { width: 26, height: 12, viewBox: "-13 -6 26 12" };
  const sample = createSvg("svg", { ...size, "aria-hidden": "true" });
  const hasMarkers = series.style === "points" || (series.style === "line" && !isSingle);
  if (series.style !== "points") {
    sample.append(createSvg("path", { d: "M-12 0H12", class: "line" }));
  }
  if (hasMarkers) {
    const shape = createSvg("path", { d: MARKER_SHAPES[index % MARKER_SHAPES.length] });
    sample.append(createSvg("g", { class: "markers" }, shape));
  }
  return sample;
}
