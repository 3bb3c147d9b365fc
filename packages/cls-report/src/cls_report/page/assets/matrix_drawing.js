// The picture of a confusion matrix on a canvas: what is within the window that the reader scrolls over it.

function matrixColours() {
  return {
    paper: colourOf("--paper"),
    ink: colourOf("--ink"),
    faint: colourOf("--muted"),
    empty: colourOf("--surface"),
    right: [colourOf("--right-few"), colourOf("--right-many")],
    wrong: [colourOf("--wrong-few"), colourOf("--wrong-many")],
  };
}

function css(color) {
  return `rgb(${color.map(Math.round).join(" ")})`;
}

function between([few, many], share) {
  return few.map((level, channel) => level + (many[channel] - level) * share);
}

function luminance(color) {
  const [red, green, blue] = color.map((level) => (level / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

// One is the lightest, the most the darkest, in equal steps for equal ratios.
function logShare(count, most) {
  return most > 1 ? Math.log(count) / Math.log(most) : 1;
}

function drawMatrix(canvas, view) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [view.width, view.height];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.fillStyle = css(view.colors.paper);
  pen.fillRect(0, 0, width, height);
  drawCells(pen, view);
  drawNames(pen, view);
}

function drawCells(pen, view) {
  const { gutter, cell, classes, colors } = view;
  pen.save();
  pen.beginPath();
  pen.rect(gutter, gutter, view.width - gutter, view.height - gutter);
  pen.clip();
  pen.translate(gutter - view.left, gutter - view.top);
  const side = classes.length * cell;
  pen.fillStyle = css(colors.empty);
  pen.fillRect(0, 0, side, side);
  drawDiagonal(pen, view, side);
  if (cell >= 7) drawGrid(pen, view, side);
  for (const each of view.cells) drawCell(pen, view, each);
  if (view.chosen) drawRing(pen, view);
  pen.restore();
}

function drawDiagonal(pen, { colors }, side) {
  pen.strokeStyle = css(between([colors.empty, colors.faint], 0.35));
  pen.lineWidth = 1;
  pen.beginPath();
  pen.moveTo(0, 0);
  pen.lineTo(side, side);
  pen.stroke();
}

function drawGrid(pen, { cell, colors, left, top, width, height }, side) {
  pen.strokeStyle = css(colors.paper);
  pen.lineWidth = 1;
  pen.beginPath();
  for (let at = Math.floor(left / cell) * cell; at <= Math.min(side, left + width); at += cell) {
    pen.moveTo(at, 0);
    pen.lineTo(at, side);
  }
  for (let at = Math.floor(top / cell) * cell; at <= Math.min(side, top + height); at += cell) {
    pen.moveTo(0, at);
    pen.lineTo(side, at);
  }
  pen.stroke();
}

function drawCell(pen, view, { row, column, count, wrong }) {
  const { cell, colors } = view;
  const [x, y] = [column * cell, row * cell];
  if (x + cell < view.left || y + cell < view.top || x > view.left + view.width || y > view.top + view.height) return;
  const color = between(
    wrong ? colors.wrong : colors.right,
    logShare(count, wrong ? view.mostWrong : view.mostRight),
  );
  const side = Math.max(cell >= 7 ? cell - 1 : cell, wrong ? 2 : 1); // a mistake is never smaller than an eye can find
  pen.fillStyle = css(color);
  pen.fillRect(x + (cell >= 7 ? 0.5 : 0), y + (cell >= 7 ? 0.5 : 0), side, side);
  if (cell < 13) return;
  const text = count < 10000 ? String(count) : `${Math.round(count / 1000)}k`;
  const size = Math.min(cell * 0.6, 15, (cell * 1.5) / text.length);
  if (size < 7) return;
  pen.font = `${size}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = luminance(color) > 0.18 ? "#000" : "#fff";
  pen.fillText(text, x + cell / 2, y + cell / 2 + 0.5);
}

function drawRing(pen, { chosen, cell, colors }) {
  const side = Math.max(cell, 9);
  const [x, y] = [(chosen.column + 0.5) * cell - side / 2, (chosen.row + 0.5) * cell - side / 2];
  pen.strokeStyle = css(colors.paper);
  pen.lineWidth = 5;
  pen.strokeRect(x, y, side, side);
  pen.strokeStyle = css(colors.ink);
  pen.lineWidth = 2.5;
  pen.strokeRect(x, y, side, side);
}

function drawNames(pen, view) {
  const { gutter, cell, classes } = view;
  const step = Math.ceil(12 / cell);
  pen.font = `${view.font}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  for (let index = 0; index < classes.length; index += step) {
    const at = gutter + (index + 0.5) * cell;
    if (at - view.top >= gutter)
      drawName(pen, view, index, gutter - 6, at - view.top, view.chosen?.row === index, false);
    if (at - view.left >= gutter)
      drawName(pen, view, index, at - view.left, gutter - 6, view.chosen?.column === index, true);
  }
}

function drawName(pen, view, index, x, y, chosen, above) {
  if ((above ? x : y) > (above ? view.width : view.height) + view.cell) return;
  pen.save();
  pen.translate(x, y);
  pen.textAlign = !above ? "right" : view.level ? "center" : "left";
  if (above && !view.level) pen.rotate(-Math.PI / 2);
  pen.fillStyle = css(chosen ? view.colors.ink : view.colors.faint);
  pen.fillText(view.names[index], 0, above && view.level ? -5 : 0);
  pen.restore();
}

// A name cut to the room it has, in its middle: names differ at their ends.
function shortened(pen, name, room) {
  if (!name.trim()) return wordOf(name);
  const whole = [...name];
  if (whole.length <= 40 && pen.measureText(name).width <= room) return name;
  for (let kept = Math.min(whole.length - 1, 24); kept > 1; kept -= 1) {
    const text = `${whole.slice(0, Math.ceil(kept / 2)).join("")}…${whole.slice(-Math.floor(kept / 2)).join("")}`;
    if (pen.measureText(text).width <= room) return text;
  }
  return `${whole[0]}…`;
}
