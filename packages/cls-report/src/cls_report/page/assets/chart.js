// A chart that is read: what is under the pointer, or where the arrow keys lead, is written beside it.

class ReadChart {
  constructor(block) {
    this.chart = readData(block.dataset.source);
    this.hidden = new Set();
    const title = block.querySelector("h3").textContent;
    this.cross = draw("g", { class: "cross" });
    this.picture = draw("svg", { "aria-hidden": "true" });
    this.readout = make("div", { class: "readout", hidden: true });
    this.plot = make(
      "div",
      { class: "plot", role: "slider", tabindex: "0", "aria-valuemin": "1" },
      this.picture,
      this.readout,
    );
    this.plot.setAttribute("aria-label", `${title}: values along ${this.chart.x_title || "the axis"}`);
    const legend = makeLegend(this.chart, this.hidden, () => this.redraw());
    const parts = [legend, this.plot, valuesAsTable(this.chart, title)];
    block.querySelector(".place").replaceChildren(...parts.filter(Boolean));
    this.listen();
  }

  listen() {
    const readNear = ({ clientX }) => this.readNear(clientX - this.plot.getBoundingClientRect().left);
    this.plot.addEventListener("pointermove", readNear);
    this.plot.addEventListener("pointerdown", readNear);
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.plot.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("keydown", (event) => {
      const moved = movedBy(event.key, this.at, this.stops.length);
      if (moved === undefined) return;
      event.preventDefault();
      this.read(moved);
    });
    new ResizeObserver(() => {
      if (this.plot.clientWidth && this.plot.clientWidth !== this.frame?.width) this.redraw();
    }).observe(this.plot);
  }

  redraw() {
    const { chart, hidden, picture } = this;
    const shown = chart.series.filter((_, place) => !hidden.has(place));
    const frame = frameOf(chart, shown, this.plot.clientWidth);
    this.frame = frame;
    this.stops = [
      ...new Set(
        shown.flatMap((series) =>
          pieces(series, series.y)
            .flat()
            .map((index) => series.x[index]),
        ),
      ),
    ];
    this.stops.sort((one, other) => one - other);
    const drawn = chart.series.map((series, place) => (hidden.has(place) ? null : drawSeries(series, place, frame)));
    picture.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
    picture.setAttribute("height", frame.height);
    picture.replaceChildren(drawAxes(chart, frame), ...drawn.filter(Boolean), this.cross);
    this.plot.setAttribute("aria-valuemax", this.stops.length);
    this.read(null);
  }

  readNear(pixel) {
    const x = this.frame.x.value(pixel);
    const nearer = (best, each, index) => (Math.abs(each - x) < Math.abs(this.stops[best] - x) ? index : best);
    if (this.stops.length) this.read(this.stops.reduce(nearer, 0));
  }

  // Read the values at one of the stops, the places along the axis where there is any value; null reads none.
  read(at) {
    const { chart, frame, plot } = this;
    this.at = at;
    const x = at === null ? null : this.stops[at];
    const values = at === null ? [] : valuesAt(chart, this.hidden, x, frame);
    plot.setAttribute("aria-valuenow", at === null ? 1 : at + 1);
    plot.setAttribute("aria-valuetext", at === null ? "press the arrow keys" : spoken(chart, x, values));
    this.readout.hidden = at === null;
    this.cross.replaceChildren();
    if (at !== null) this.point(x, values);
  }

  point(x, values) {
    const { chart, frame, cross, readout } = this;
    const left = frame.x(x);
    cross.append(draw("line", { x1: left, x2: left, y1: frame.box.top, y2: frame.box.bottom }));
    for (const { place, x: at, y } of values) {
      cross.append(draw("circle", { cx: frame.x(at), cy: frame.y(y), r: 4.5, class: colourClass(place) }));
    }
    const lines = values.map(({ place, name, text }) =>
      make(
        "div",
        { class: `line ${colourClass(place)}` },
        make("span", { class: "name" }, nameOf(name)),
        make("span", { class: "value" }, text),
      ),
    );
    readout.replaceChildren(make("div", { class: "at" }, `${chart.x_title} ${figureOf(x, chart.x_unit)}`), ...lines);
    readout.classList.toggle("leftwards", left > frame.width / 2);
    readout.style.setProperty("--at", `${left}px`);
  }
}

// The next stop for a key; null is none, undefined a key that means nothing here.
function movedBy(key, at, length) {
  if (key === "Escape") return null;
  const last = length - 1;
  const page = Math.max(1, Math.round(length / 10));
  const from = at ?? -1;
  const targets = {
    ArrowRight: from + 1,
    ArrowUp: from + 1,
    ArrowLeft: from - 1,
    ArrowDown: from - 1,
    PageUp: from + page,
    PageDown: from - page,
    Home: 0,
    End: last,
  };
  return key in targets && length ? Math.min(Math.max(targets[key], 0), last) : undefined;
}
