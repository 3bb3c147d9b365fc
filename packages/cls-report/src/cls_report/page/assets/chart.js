// An interactive chart. The values under the pointer, or at the position that the arrow keys
// select, are displayed beside it.

class InteractiveChart {
  constructor(block) {
    const title = block.querySelector("h3").textContent;
    this.chart = readData(block.dataset.source);
    this.hidden = new Set();
    this.xValues = [];
    this.position = null;
    this.crosshair = createSvg("g", { class: "crosshair" });
    this.svg = createSvg("svg", { "aria-hidden": "true" });
    this.readout = createHtml("div", { class: "readout", hidden: true });
    this.plot = createHtml(
      "div",
      {
        class: "plot",
        role: "slider",
        tabindex: "0",
        "aria-valuemin": "1",
        "aria-label": `${title}: values along ${this.chart.x_title || "the axis"}`,
      },
      this.svg,
      this.readout,
    );

    const legend = createLegend(this.chart, this.hidden, () => this.redraw());
    const content = [legend, this.plot, valuesDetails(this.chart, title)];
    block.querySelector(".block-body").replaceChildren(...content.filter(Boolean));
    this.addListeners();
  }

  addListeners() {
    const readPointer = (event) => {
      const left = this.plot.getBoundingClientRect().left;
      this.readNearest(event.clientX - left);
    };
    this.plot.addEventListener("pointermove", readPointer);
    this.plot.addEventListener("pointerdown", readPointer);
    this.plot.addEventListener("pointerleave", () => this.read(null));
    this.plot.addEventListener("blur", () => this.read(null));
    this.plot.addEventListener("keydown", (event) => this.handleKey(event));
    const observer = new ResizeObserver(() => {
      const width = this.plot.clientWidth;
      if (width && width !== this.layout?.width) this.redraw();
    });
    observer.observe(this.plot);
  }

  handleKey(event) {
    const position = positionAfterKey(event.key, this.position, this.xValues.length);
    if (position === undefined) return;
    event.preventDefault();
    this.read(position);
  }

  redraw() {
    const visible = this.chart.series.filter((_, index) => !this.hidden.has(index));
    this.layout = chartLayout(this.chart, visible, this.plot.clientWidth);
    this.xValues = distinctXValues(visible);

    const { width, height } = this.layout;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.setAttribute("height", height);
    this.svg.replaceChildren(drawAxes(this.chart, this.layout));
    this.chart.series.forEach((series, index) => {
      if (!this.hidden.has(index)) this.svg.append(drawSeries(series, index, this.layout));
    });
    this.svg.append(this.crosshair);
    this.plot.setAttribute("aria-valuemax", this.xValues.length);
    this.read(null);
  }

  readNearest(pixel) {
    if (!this.xValues.length) return;
    const x = this.layout.x.invert(pixel);
    let nearest = 0;
    this.xValues.forEach((each, index) => {
      if (Math.abs(each - x) < Math.abs(this.xValues[nearest] - x)) nearest = index;
    });
    this.read(nearest);
  }

  // Display the values at one of the x values, given by its position; null hides them.
  read(position) {
    this.position = position;
    this.crosshair.replaceChildren();
    this.readout.hidden = position === null;
    if (position === null) {
      this.plot.setAttribute("aria-valuenow", 1);
      this.plot.setAttribute("aria-valuetext", "Press the arrow keys to read values");
      return;
    }
    const x = this.xValues[position];
    const values = valuesAt(this.chart, this.hidden, x, this.layout);
    this.plot.setAttribute("aria-valuenow", position + 1);
    this.plot.setAttribute("aria-valuetext", describeValues(this.chart, x, values));
    this.drawCrosshair(x, values);
    this.updateReadout(x, values);
  }

  drawCrosshair(x, values) {
    const { layout, crosshair } = this;
    const left = layout.x(x);
    const { top, bottom } = layout.box;
    crosshair.append(createSvg("line", { x1: left, x2: left, y1: top, y2: bottom }));
    for (const value of values) {
      const center = { cx: layout.x(value.x), cy: layout.y(value.y), r: 4.5 };
      crosshair.append(createSvg("circle", { ...center, class: seriesColorClass(value.index) }));
    }
  }

  updateReadout(x, values) {
    const xText = `${this.chart.x_title} ${formatValue(x, this.chart.x_unit)}`;
    this.readout.replaceChildren(createHtml("div", { class: "at" }, xText));
    for (const { index, name, text } of values) {
      const line = createHtml(
        "div",
        { class: `line ${seriesColorClass(index)}` },
        createHtml("span", { class: "name" }, nameElement(name)),
        createHtml("span", { class: "value" }, text),
      );
      this.readout.append(line);
    }
    const left = this.layout.x(x);
    this.readout.classList.toggle("on-left", left > this.layout.width / 2);
    this.readout.style.setProperty("--at", `${left}px`);
  }
}

// The x values of all points that have a y value, in ascending order.
function distinctXValues(seriesList) {
  const values = new Set();
  for (const series of seriesList) {
    for (const index of splitAtGaps(series, series.y).flat()) values.add(series.x[index]);
  }
  return [...values].sort((first, second) => first - second);
}

// The position after a key press: null for none, undefined for a key without a function.
function positionAfterKey(key, position, length) {
  if (key === "Escape") return null;
  if (!length) return undefined;
  const last = length - 1;
  const current = position ?? -1;
  const page = Math.max(1, Math.round(length / 10));
  const targets = {
    ArrowRight: current + 1,
    ArrowUp: current + 1,
    ArrowLeft: current - 1,
    ArrowDown: current - 1,
    PageUp: current + page,
    PageDown: current - page,
    Home: 0,
    End: last,
  };
  if (!(key in targets)) return undefined;
  return Math.min(Math.max(targets[key], 0), last);
}
