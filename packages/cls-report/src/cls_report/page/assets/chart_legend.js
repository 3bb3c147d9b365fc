// A chart's legend, which hides its lines and shows them again.

function makeLegend(chart, hidden, redraw) {
  const one = chart.series.length === 1;
  if (one && !chart.series[0].name) return null;
  const entries = chart.series.map((series, place) => {
    const look = [sample(series, place, one), nameOf(series.name)];
    const names = { class: `entry ${colourClass(place)} ${series.style}` };
    return make("li", {}, one ? make("span", names, ...look) : toggle(names, look, hidden, place, redraw));
  });
  return make("ul", { class: "legend", "aria-label": "Lines of the chart" }, ...entries);
}

function toggle(names, look, hidden, place, redraw) {
  const button = make("button", { type: "button", "aria-pressed": "true", title: "Hide or show", ...names }, ...look);
  button.addEventListener("click", () => {
    if (!hidden.delete(place)) hidden.add(place);
    button.setAttribute("aria-pressed", !hidden.has(place));
    redraw();
  });
  return button;
}

function sample(series, place, one) {
  const mark = draw("svg", { width: 26, height: 12, viewBox: "-13 -6 26 12", "aria-hidden": "true" });
  if (series.style !== "points") mark.append(draw("path", { d: "M-12 0H12", class: "line" }));
  if (series.style === "points" || (series.style === "line" && !one))
    mark.append(draw("g", { class: "markers" }, draw("path", { d: SHAPES[place % SHAPES.length] })));
  return mark;
}
