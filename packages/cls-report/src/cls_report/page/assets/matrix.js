// A confusion matrix that can be scrolled, zoomed, clicked, and walked through with the arrow
// keys. For screen readers it is a grid with one cell at a time, because 1,000 classes would have
// a million cells.

const LARGEST_CELL = 72; // px
const TOUCH_CELL = 8; // px; smaller cells are hard to hit with the pointer
const HIT_DISTANCE = 8; // px
const MAX_GUTTER = 96; // px, for the class names beside the cells
const MAX_SIDE = 760; // px

const ARROW_STEPS = {
  ArrowUp: { rows: -1, columns: 0 },
  ArrowDown: { rows: 1, columns: 0 },
  ArrowLeft: { rows: 0, columns: -1 },
  ArrowRight: { rows: 0, columns: 1 },
};

class MatrixView {
  // `describeCell` is called for each cell that is hovered or selected, and returns its
  // description; `openCell` for each cell that is opened; `onClassesChange` for other classes.
  constructor(counts, names, title, { describeCell, openCell, onClassesChange }) {
    this.counts = counts;
    this.names = names;
    this.describeCell = describeCell;
    this.openCell = openCell;
    this.onClassesChange = onClassesChange;
    this.classes = [];
    this.cells = [];
    this.selected = null;
    this.canvas = createHtml("canvas", { "aria-hidden": "true" });
    this.spacer = createHtml("div", { class: "spacer" }, this.canvas);
    this.accessibleRow = createHtml("div", { role: "row", class: "visually-hidden" });
    const attributes = {
      class: "matrix",
      role: "grid",
      tabindex: "0",
      "aria-readonly": "true",
      "aria-label":
        `${title}: rows are labels, columns are predictions. Use the arrow keys to move, Shift ` +
        "and an arrow key to move to the next cell with images, and Enter to display its images.",
    };
    this.element = createHtml("div", attributes, this.accessibleRow, this.spacer);
    this.addListeners();
  }

  showAllClasses() {
    this.showClasses(Array.from(this.names.keys()));
  }

  // Display some of the classes, given by their indices.
  showClasses(classes) {
    this.classes = classes;
    this.positions = new Map(classes.map((index, position) => [index, position]));
    this.cells = this.displayedCells();
    const wrongCounts = this.cells.filter((cell) => cell.isWrong).map((cell) => cell.count);
    const correctCounts = this.cells.filter((cell) => !cell.isWrong).map((cell) => cell.count);
    this.maxWrong = wrongCounts.at(-1) ?? 1;
    this.maxCorrect = correctCounts.at(-1) ?? 1;
    this.mistakes = wrongCounts.reduce((sum, count) => sum + count, 0);
    this.zoom = 1;
    this.selected = null;
    this.element.setAttribute("aria-rowcount", classes.length);
    this.element.setAttribute("aria-colcount", classes.length);
    this.updateSize();
    this.onClassesChange();
  }

  // The cells with images, in drawing order: correct before wrong, and small counts first.
  displayedCells() {
    const cells = [];
    for (const { label, predicted, images } of this.counts.allCells) {
      const row = this.positions.get(label);
      const column = this.positions.get(predicted);
      if (row === undefined || column === undefined) continue;
      cells.push({ row, column, count: images.length, isWrong: label !== predicted });
    }
    return cells.sort((first, second) => {
      return first.isWrong - second.isWrong || first.count - second.count;
    });
  }

  updateSize() {
    const width = this.element.parentElement?.clientWidth;
    const count = this.classes.length;
    if (!width || !count) return;
    const longestName = this.measureNames();
    this.gutter = Math.min(Math.ceil(longestName), MAX_GUTTER, Math.round(width / 3)) + 12;
    const exactCell = (Math.min(width, MAX_SIDE) - this.gutter) / count;
    this.fittingCell = exactCell > 4 ? Math.min(Math.floor(exactCell), LARGEST_CELL) : exactCell;
    this.cell = Math.min(this.fittingCell * this.zoom, LARGEST_CELL);
    this.hasHorizontalNames = longestName <= this.cell - 2;

    const side = this.gutter + count * this.cell;
    this.width = Math.min(width, side);
    this.height = Math.min(side, MAX_SIDE);
    setSize(this.element, this.width, this.height);
    setSize(this.canvas, this.width, this.height);
    setSize(this.spacer, side, side);
    this.element.dataset.gutter = this.gutter;
    this.draw();
  }

  // Shorten the class names, and return the width of the longest.
  measureNames() {
    const context = this.canvas.getContext("2d");
    this.fontSize = 12;
    context.font = `${this.fontSize}px system-ui, sans-serif`;
    this.shortNames = this.classes.map((index) => {
      return shortenName(context, this.names[index], MAX_GUTTER);
    });
    return Math.max(...this.shortNames.map((name) => context.measureText(name).width));
  }

  draw() {
    if (!this.cell) return;
    this.colors ??= matrixColors();
    const scroll = { left: this.element.scrollLeft, top: this.element.scrollTop };
    drawMatrix(this.canvas, { ...this, names: this.shortNames, ...scroll });
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.draw();
    });
  }

  // Zoom around the selected cell, or else the center of the visible part.
  zoomBy(factor) {
    const before = this.cell;
    const visibleWidth = this.width - this.gutter;
    const visibleHeight = this.height - this.gutter;
    let x = this.element.scrollLeft + visibleWidth / 2;
    let y = this.element.scrollTop + visibleHeight / 2;
    if (this.selected) {
      x = (this.selected.column + 0.5) * before;
      y = (this.selected.row + 0.5) * before;
    }
    const maxZoom = Math.max(1, LARGEST_CELL / this.fittingCell);
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), maxZoom);
    this.updateSize();
    const ratio = this.cell / before;
    this.element.scrollTo(x * ratio - visibleWidth / 2, y * ratio - visibleHeight / 2);
    this.drawSoon();
  }

  addListeners() {
    const { element } = this;
    element.addEventListener("scroll", () => this.drawSoon(), { passive: true });
    element.addEventListener("pointermove", (event) => this.hover(this.cellAt(event)));
    element.addEventListener("pointerleave", () => this.hover(this.selected));
    element.addEventListener("click", (event) => {
      const cell = this.cellAt(event);
      if (cell) {
        this.select(cell);
        this.open(cell);
      }
    });
    element.addEventListener("focus", () => this.select(this.selected ?? { row: 0, column: 0 }));
    element.addEventListener("keydown", (event) => this.handleKey(event));
    onThemeChange(() => {
      this.colors = null;
      this.drawSoon();
    });
    let width = 0;
    const observer = new ResizeObserver(() => {
      if (element.parentElement.clientWidth !== width) this.updateSize();
      width = element.parentElement.clientWidth;
    });
    observer.observe(element);
  }

  // The cell under the pointer. With tiny cells or a finger, a cell with images is also hit from
  // a few pixels away.
  cellAt(event) {
    const edges = this.element.getBoundingClientRect();
    const x = event.clientX - edges.left - this.element.clientLeft;
    const y = event.clientY - edges.top - this.element.clientTop;
    if (x < this.gutter || y < this.gutter) return null;
    const column = (x - this.gutter + this.element.scrollLeft) / this.cell;
    const row = (y - this.gutter + this.element.scrollTop) / this.cell;
    if (row >= this.classes.length || column >= this.classes.length) return null;
    const exact = { row: Math.floor(row), column: Math.floor(column) };
    const isImprecise = this.cell < TOUCH_CELL || event.pointerType === "touch";
    return isImprecise ? (this.nearestCell(row, column) ?? exact) : exact;
  }

  nearestCell(row, column) {
    let nearest = null;
    let smallest = Math.max(HIT_DISTANCE / this.cell, 0.5);
    for (const cell of this.cells) {
      const rows = Math.abs(cell.row + 0.5 - row);
      const columns = Math.abs(cell.column + 0.5 - column);
      const distance = Math.max(rows, columns);
      if (distance <= smallest) {
        nearest = cell;
        smallest = distance;
      }
    }
    return nearest;
  }

  hover(cell) {
    if (cell) this.describeCell(this.classes[cell.row], this.classes[cell.column]);
  }

  open(cell) {
    this.openCell(this.classes[cell.row], this.classes[cell.column]);
  }

  handleKey(event) {
    const { key, shiftKey, ctrlKey } = event;
    const from = this.selected ?? { row: 0, column: 0 };
    const last = this.classes.length - 1;
    if (key in ARROW_STEPS) {
      const step = ARROW_STEPS[key];
      this.select(shiftKey ? this.nextCellWithImages(from, step) : moveCell(from, step, last));
    } else if (key === "Home") {
      this.select({ row: ctrlKey ? 0 : from.row, column: 0 });
    } else if (key === "End") {
      this.select({ row: ctrlKey ? last : from.row, column: last });
    } else if (key === "Enter" || key === " ") {
      this.open(from);
    } else {
      return;
    }
    event.preventDefault();
  }

  // The next cell with images in a direction, or the given cell if there is none.
  nextCellWithImages(from, { rows, columns }) {
    let next = from;
    let smallest = Infinity;
    for (const cell of this.cells) {
      const isAligned = rows ? cell.column === from.column : cell.row === from.row;
      const distance = (cell.row - from.row) * rows + (cell.column - from.column) * columns;
      if (isAligned && distance > 0 && distance < smallest) {
        next = cell;
        smallest = distance;
      }
    }
    return next;
  }

  select({ row, column }) {
    this.selected = { row, column };
    const text = this.describeCell(this.classes[row], this.classes[column]);
    const attributes = { role: "gridcell", id: newId(), "aria-colindex": column + 1 };
    const cell = createHtml("div", attributes, text);
    this.accessibleRow.setAttribute("aria-rowindex", row + 1);
    this.accessibleRow.replaceChildren(cell);
    this.element.setAttribute("aria-activedescendant", cell.id);
    this.scrollToSelected();
    this.drawSoon();
  }

  // Select a cell by its classes, or nothing if they are not displayed.
  selectClasses(label, predicted) {
    const row = this.positions.get(label);
    const column = this.positions.get(predicted);
    if (row !== undefined && column !== undefined) this.select({ row, column });
    else this.selected = null;
    this.drawSoon();
  }

  scrollToSelected() {
    const { element, gutter, cell } = this;
    const { row, column } = this.selected;
    element.scrollTo(
      scrollPosition(column * cell, cell, element.scrollLeft, element.clientWidth - gutter),
      scrollPosition(row * cell, cell, element.scrollTop, element.clientHeight - gutter),
    );
  }
}

// The nearest scroll position at which a cell is visible.
function scrollPosition(start, size, current, room) {
  if (start < current) return start;
  if (start + size > current + room) return start + size - room;
  return current;
}

function moveCell({ row, column }, { rows, columns }, last) {
  const clamp = (index) => Math.min(Math.max(index, 0), last);
  return { row: clamp(row + rows), column: clamp(column + columns) };
}

function setSize(element, width, height) {
  element.style.width = `${width}px`;
  element.style.height = `${height}px`;
}
