// Draw the visible part of a confusion matrix on a canvas.

const MIN_CELL_FOR_GRID = 7; // px
const MIN_CELL_FOR_COUNTS = 13; // px
const MIN_FONT_SIZE = 7; // px
const MAX_NAME_LENGTH = 40; // characters

function matrixColors() {
  return {
    paper: resolveColor("--paper"),
    ink: resolveColor("--ink"),
    muted: resolveColor("--muted"),
    empty: resolveColor("--surface"),
    correct: [resolveColor("--correct-few"), resolveColor("--correct-many")],
    wrong: [resolveColor("--wrong-few"), resolveColor("--wrong-many")],
  };
}

function cssColor(color) {
  return `rgb(${color.map(Math.round).join(" ")})`;
}

function mixColors([first, second], share) {
  return first.map((level, channel) => level + (second[channel] - level) * share);
}

function relativeLuminance(color) {
  const [red, green, blue] = color.map((level) => (level / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// 0 for a count of 1, and 1 for the largest count.
function logarithmicShare(count, maximum) {
  return maximum > 1 ? Math.log(count) / Math.log(maximum) : 1;
}

function drawMatrix(canvas, view) {
  const { width, height, colors } = view;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.fillStyle = cssColor(colors.paper);
  context.fillRect(0, 0, width, height);
  drawCells(context, view);
  drawClassNames(context, view);
}

function drawCells(context, view) {
  const { gutter, cell, classes, colors } = view;
  context.save();
  context.beginPath();
  context.rect(gutter, gutter, view.width - gutter, view.height - gutter);
  context.clip();
  context.translate(gutter - view.left, gutter - view.top);
  const side = classes.length * cell;
  context.fillStyle = cssColor(colors.empty);
  context.fillRect(0, 0, side, side);
  drawDiagonal(context, colors, side);
  if (cell >= MIN_CELL_FOR_GRID) drawGrid(context, view, side);
  for (const each of view.cells) drawCell(context, view, each);
  if (view.selected) drawSelection(context, view);
  context.restore();
}

function drawDiagonal(context, colors, side) {
  context.strokeStyle = cssColor(mixColors([colors.empty, colors.muted], 0.35));
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(0, 0);
  context.lineTo(side, side);
  context.stroke();
}

function drawGrid(context, { cell, colors, left, top, width, height }, side) {
  context.strokeStyle = cssColor(colors.paper);
  context.lineWidth = 1;
  context.beginPath();
  for (const x of gridLines(left, width, cell, side)) {
    context.moveTo(x, 0);
    context.lineTo(x, side);
  }
  for (const y of gridLines(top, height, cell, side)) {
    context.moveTo(0, y);
    context.lineTo(side, y);
  }
  context.stroke();
}

function gridLines(start, length, cell, side) {
  const lines = [];
  const end = Math.min(side, start + length);
  for (let at = Math.floor(start / cell) * cell; at <= end; at += cell) lines.push(at);
  return lines;
}

function drawCell(context, view, { row, column, count, isWrong }) {
  const { cell, colors, left, top, width, height } = view;
  const x = column * cell;
  const y = row * cell;
  if (x + cell < left || x > left + width || y + cell < top || y > top + height) return;

  const range = isWrong ? colors.wrong : colors.correct;
  const maximum = isWrong ? view.maxWrong : view.maxCorrect;
  const color = mixColors(range, logarithmicShare(count, maximum));
  const hasGrid = cell >= MIN_CELL_FOR_GRID;
  const offset = hasGrid ? 0.5 : 0;
  const minSide = isWrong ? 2 : 1; // mistakes stay visible
  const side = Math.max(hasGrid ? cell - 1 : cell, minSide);
  context.fillStyle = cssColor(color);
  context.fillRect(x + offset, y + offset, side, side);
  if (cell >= MIN_CELL_FOR_COUNTS) drawCount(context, count, color, cell, x, y);
}

function drawCount(context, count, color, cell, x, y) {
  const text = count < 10000 ? String(count) : `${Math.round(count / 1000)}k`;
  const size = Math.min(cell * 0.6, 15, (cell * 1.5) / text.length);
  if (size < MIN_FONT_SIZE) return;
  context.font = `${size}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = relativeLuminance(color) > 0.18 ? "#000" : "#fff";
  context.fillText(text, x + cell / 2, y + cell / 2 + 0.5);
}

function drawSelection(context, { selected, cell, colors }) {
  const side = Math.max(cell, 9);
  const x = (selected.column + 0.5) * cell - side / 2;
  const y = (selected.row + 0.5) * cell - side / 2;
  context.strokeStyle = cssColor(colors.paper);
  context.lineWidth = 5;
  context.strokeRect(x, y, side, side);
  context.strokeStyle = cssColor(colors.ink);
  context.lineWidth = 2.5;
  context.strokeRect(x, y, side, side);
}

function drawClassNames(context, view) {
  const { gutter, cell, classes, selected } = view;
  const step = Math.ceil(12 / cell);
  context.font = `${view.fontSize}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (let index = 0; index < classes.length; index += step) {
    const center = gutter + (index + 0.5) * cell;
    const x = center - view.left;
    const y = center - view.top;
    if (y >= gutter) drawRowName(context, view, index, y, selected?.row === index);
    if (x >= gutter) drawColumnName(context, view, index, x, selected?.column === index);
  }
}

function drawRowName(context, view, index, y, isSelected) {
  if (y > view.height + view.cell) return;
  context.textAlign = "right";
  context.fillStyle = nameColor(view, isSelected);
  context.fillText(view.names[index], view.gutter - 6, y);
}

function drawColumnName(context, view, index, x, isSelected) {
  if (x > view.width + view.cell) return;
  context.save();
  context.translate(x, view.gutter - 6);
  context.fillStyle = nameColor(view, isSelected);
  if (view.hasHorizontalNames) {
    context.textAlign = "center";
    context.fillText(view.names[index], 0, -5);
  } else {
    context.rotate(-Math.PI / 2);
    context.textAlign = "left";
    context.fillText(view.names[index], 0, 0);
  }
  context.restore();
}

function nameColor({ colors }, isSelected) {
  return cssColor(isSelected ? colors.ink : colors.muted);
}

// Shorten a name in the middle, because similar names differ at the end.
function shortenName(context, name, maxWidth) {
  if (!name.trim()) return visibleName(name);
  const characters = [...name];
  const fits = (text) => context.measureText(text).width <= maxWidth;
  if (characters.length <= MAX_NAME_LENGTH && fits(name)) return name;
  for (let count = Math.min(characters.length - 1, 24); count > 1; count -= 1) {
    const start = characters.slice(0, Math.ceil(count / 2)).join("");
    const end = characters.slice(-Math.floor(count / 2)).join("");
    const text = `${start}…${end}`;
    if (fits(text)) return text;
  }
  return `${characters[0]}…`;
}
