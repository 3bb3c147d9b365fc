// A chart's legend, which hides its lines and shows them again.

function makeLegend(chart, hidden, redraw) {
  if (chart.series.length === 1 && !chart.series[0].name) return null;
  const entries = chart.series.map((series, place) => {
    const button = make(
      "button",
      { type: "button", "aria-pressed": "true", class: `${colourClass(place)} ${series.style}`, click: toggle },
      sample(series, place),
      nameOf(series.name),
    );
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
  if (series.style !== "dashed")
    mark.append(draw("g", { class: "markers" }, draw("path", { d: SHAPES[place % SHAPES.length] })));
  return mark;
}
