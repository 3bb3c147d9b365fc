// A confusion matrix that is scrolled, zoomed, pointed at and walked through with the arrow keys.
// To a screen reader it is a grid of which one cell is there at a time: a thousand classes would have a million.

const LARGEST_CELL = 72; // pixels
const REACH = 8; // pixels
const MOST_GUTTER = 96; // pixels, of names beside the cells

class Matrix {
  // `heard` is told of each cell pointed at or walked to and says what it is, `opened` of each that is to be opened,
  // and `shown` when other classes are shown.
  constructor(counts, names, title, { heard, opened, shown }) {
    Object.assign(this, { counts, names, heard, opened, shown, classes: [], cells: [], chosen: null });
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.spacer = make("div", { class: "spacer" }, this.canvas);
    this.reader = make("div", { role: "row", class: "unseen" });
    this.node = make(
      "div",
      { class: "matrix", role: "grid", tabindex: "0", "aria-readonly": "true" },
      this.reader,
      this.spacer,
    );
    this.node.setAttribute(
      "aria-label",
      `${title}: rows are the truth, columns the answer. Arrow keys move, with Shift to the next cell that holds images; Enter shows them.`,
    );
    this.listen();
  }

  showAll() {
    this.show(Array.from(this.names, (_, index) => index));
  }

  // Show some of the classes, given by their indices.
  show(classes) {
    this.classes = classes;
    this.placeOf = new Map(classes.map((index, place) => [index, place]));
    this.cells = this.counts.all
      .filter((cell) => this.placeOf.has(cell.truth) && this.placeOf.has(cell.answer))
      .map((cell) => ({
        row: this.placeOf.get(cell.truth),
        column: this.placeOf.get(cell.answer),
        count: cell.images.length,
        wrong: cell.truth !== cell.answer,
      }))
      .sort((one, other) => one.wrong - other.wrong || one.count - other.count);
    this.mostWrong = this.cells.findLast((cell) => cell.wrong)?.count ?? 1;
    this.mostRight = this.cells.findLast((cell) => !cell.wrong)?.count ?? 1;
    this.mistakes = this.cells.reduce((sum, cell) => sum + cell.wrong * cell.count, 0);
    this.zoom = 1;
    this.chosen = null;
    this.node.setAttribute("aria-rowcount", classes.length);
    this.node.setAttribute("aria-colcount", classes.length);
    this.measure();
    this.shown();
  }

  measure() {
    const width = this.node.parentElement?.clientWidth;
    if (!width || !this.classes.length) return;
    const count = this.classes.length;
    const pen = this.canvas.getContext("2d");
    this.font = 12;
    pen.font = `${this.font}px system-ui, sans-serif`;
    this.shortNames = this.classes.map((index) => shortened(pen, this.names[index], MOST_GUTTER));
    const widest = Math.max(...this.shortNames.map((name) => pen.measureText(name).width));
    this.gutter = Math.min(Math.ceil(widest), MOST_GUTTER, Math.round(width / 3)) + 12;
    const room = Math.min(width, 760) - this.gutter;
    this.fit = room / count > 4 ? Math.min(Math.floor(room / count), LARGEST_CELL) : room / count;
    this.cell = Math.min(this.fit * this.zoom, LARGEST_CELL);
    this.node.dataset.gutter = this.gutter;
    this.level = widest <= this.cell - 2;
    const side = this.gutter + count * this.cell;
    this.width = Math.min(width, side);
    this.height = Math.min(side, 760);
    this.node.style.height = `${this.height}px`;
    this.node.style.width = `${this.width}px`;
    this.spacer.style.width = this.spacer.style.height = `${side}px`;
    this.canvas.style.width = `${this.width}px`;
    this.canvas.style.height = `${this.height}px`;
    this.draw();
  }

  draw() {
    if (!this.cell) return;
    this.colors ??= matrixColours();
    drawMatrix(this.canvas, { ...this, names: this.shortNames, left: this.node.scrollLeft, top: this.node.scrollTop });
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  // Zoom about the chosen cell or the middle of the window.
  zoomBy(factor) {
    const before = this.cell;
    const [x, y] = this.chosen
      ? [(this.chosen.column + 0.5) * before, (this.chosen.row + 0.5) * before]
      : [this.node.scrollLeft + (this.width - this.gutter) / 2, this.node.scrollTop + (this.height - this.gutter) / 2];
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), Math.max(1, LARGEST_CELL / this.fit));
    this.measure();
    const ratio = this.cell / before;
    this.node.scrollTo(x * ratio - (this.width - this.gutter) / 2, y * ratio - (this.height - this.gutter) / 2);
    this.drawSoon();
  }

  listen() {
    this.node.addEventListener("scroll", () => this.drawSoon(), { passive: true });
    this.node.addEventListener("pointermove", (event) => this.hover(this.cellUnder(event)));
    this.node.addEventListener("pointerleave", () => this.hover(this.chosen));
    this.node.addEventListener("click", (event) => {
      const under = this.cellUnder(event);
      if (!under) return;
      this.choose(under);
      this.opened(this.classes[under.row], this.classes[under.column]);
    });
    this.node.addEventListener("focus", () => this.choose(this.chosen ?? { row: 0, column: 0 }));
    this.node.addEventListener("keydown", (event) => this.press(event));
    onThemeChange(() => {
      this.colors = null;
      this.drawSoon();
    });
    let width = 0;
    new ResizeObserver(() => {
      if (this.node.parentElement.clientWidth !== width) this.measure();
      width = this.node.parentElement.clientWidth;
    }).observe(this.node);
  }

  // The cell under the pointer; one that holds images is found from a few pixels beside it, where cells are tiny or a
  // finger points.
  cellUnder(event) {
    const edges = this.node.getBoundingClientRect();
    const [x, y] = [event.clientX - edges.left - this.node.clientLeft, event.clientY - edges.top - this.node.clientTop];
    if (x < this.gutter || y < this.gutter) return null;
    const column = (x - this.gutter + this.node.scrollLeft) / this.cell;
    const row = (y - this.gutter + this.node.scrollTop) / this.cell;
    const last = this.classes.length;
    if (row >= last || column >= last) return null;
    const under = { row: Math.floor(row), column: Math.floor(column) };
    return this.cell < 8 || event.pointerType === "touch" ? (this.nearest(row, column) ?? under) : under;
  }

  nearest(row, column) {
    let best = null;
    let least = Math.max(REACH / this.cell, 0.5);
    for (const each of this.cells) {
      const away = Math.max(Math.abs(each.row + 0.5 - row), Math.abs(each.column + 0.5 - column));
      if (away <= least) [best, least] = [each, away];
    }
    return best;
  }

  hover(cell) {
    if (cell) this.heard(this.classes[cell.row], this.classes[cell.column]);
  }

  press(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    const from = this.chosen ?? { row: 0, column: 0 };
    const last = this.classes.length - 1;
    if (step) this.choose(event.shiftKey ? this.nextFilled(from, step) : stepped(from, step, last));
    else if (event.key === "Home") this.choose({ row: event.ctrlKey ? 0 : from.row, column: 0 });
    else if (event.key === "End") this.choose({ row: event.ctrlKey ? last : from.row, column: last });
    else if (event.key === "Enter" || event.key === " ") this.opened(this.classes[from.row], this.classes[from.column]);
    else return;
    event.preventDefault();
  }

  nextFilled(from, [down, right]) {
    const ahead = this.cells
      .filter((cell) =>
        down
          ? cell.column === from.column && (cell.row - from.row) * down > 0
          : cell.row === from.row && (cell.column - from.column) * right > 0,
      )
      .sort(
        (one, other) =>
          Math.abs(one.row - from.row + one.column - from.column) -
          Math.abs(other.row - from.row + other.column - from.column),
      );
    return ahead[0] ?? from;
  }

  choose({ row, column }) {
    this.chosen = { row, column };
    const [truth, answer] = [this.classes[row], this.classes[column]];
    const text = this.heard(truth, answer);
    const cell = make("div", { role: "gridcell", id: newId(), "aria-colindex": column + 1 }, text);
    this.reader.setAttribute("aria-rowindex", row + 1);
    this.reader.replaceChildren(cell);
    this.node.setAttribute("aria-activedescendant", cell.id);
    this.bringIntoView();
    this.drawSoon();
  }

  // Choose by class, as from a list; nothing where the class is not shown.
  chooseClasses(truth, answer) {
    const [row, column] = [this.placeOf.get(truth), this.placeOf.get(answer)];
    if (row !== undefined && column !== undefined) this.choose({ row, column });
    else this.chosen = null;
    this.drawSoon();
  }

  bringIntoView() {
    const { row, column } = this.chosen;
    const moved = (at, start, room) =>
      at < start ? at : at + this.cell > start + room ? at + this.cell - room : start;
    this.node.scrollTo(
      moved(column * this.cell, this.node.scrollLeft, this.node.clientWidth - this.gutter),
      moved(row * this.cell, this.node.scrollTop, this.node.clientHeight - this.gutter),
    );
  }
}

function stepped({ row, column }, [down, right], last) {
  const within = (at) => Math.min(Math.max(at, 0), last);
  return { row: within(row + down), column: within(column + right) };
}
