// The confusion matrix block: the matrix, the most frequent confusions, and the images of a cell.

const LARGE_CELL = 24; // px; such cells need no zoom
const SMALLEST_CELL = 9; // px; below it, only the most confused classes are displayed at first
const SUBSET_SIZE = 25; // classes
const MAX_CLASSES_IN_SMALL_MATRIX = 8;

function buildConfusionMatrix(block) {
  const data = readData(block.dataset.source);
  const counts = countConfusions(data);
  const title = block.querySelector("h3").textContent;
  const readout = createHtml("p", { class: "readout" }, "Click a cell to display its images.");
  const panel = createHtml("section", { class: "cell-images", "aria-label": "Images of the cell" });
  const status = createHtml("p", { role: "status", class: "visually-hidden" });
  const legend = createHtml("p", { class: "matrix-legend" });

  function describeCell(label, predicted) {
    readout.replaceChildren(...cellDescription(data, counts, label, predicted));
    return readout.textContent;
  }

  function openCell(label, predicted) {
    status.textContent = showCellImages(panel, data, counts.cell(label, predicted));
    topConfusions.highlight(label, predicted);
  }

  function updateLegend() {
    legend.replaceChildren(...legendEntries(matrix));
  }

  const callbacks = { describeCell, openCell, onClassesChange: updateLegend };
  const matrix = new MatrixView(counts, data.classes, title, callbacks);
  const topConfusions = new TopConfusions(data, counts, (label, predicted) => {
    matrix.selectClasses(label, predicted);
    describeCell(label, predicted);
    openCell(label, predicted);
  });

  const axes = createHtml("p", { class: "matrix-legend" }, "Rows: label. Columns: prediction.");
  const isSmall = counts.size <= MAX_CLASSES_IN_SMALL_MATRIX;
  const columns = createHtml(
    "div",
    { class: isSmall ? "matrix-columns small" : "matrix-columns" },
    createHtml("div", {}, axes, matrix.element, readout, legend),
    createHtml("div", {}, panel, topConfusions.element),
  );
  const tools = createHtml("div", { class: "tools" });
  const body = block.querySelector(".block-body");
  body.replaceChildren(accuracySummary(counts), tools, columns, status);
  matrix.showAllClasses();
  addClassSelect(tools, matrix, counts);
  if (matrix.fittingCell < LARGE_CELL) tools.append(...zoomButtons(matrix));
}

function accuracySummary(counts) {
  const correct = formatCount(counts.images - counts.mistakes);
  let text = `${correct} of ${pluralize(counts.images, "image")} correct`;
  if (counts.mistakes) {
    const cells = pluralize(counts.wrongCells.length, "cell");
    text += `; ${pluralize(counts.mistakes, "mistake")} in ${cells}`;
  }
  return createHtml("p", { class: "summary" }, `${text}.`);
}

function cellDescription(data, counts, label, predicted) {
  const { images } = counts.cell(label, predicted);
  const total = counts.labelCounts[label];
  let text = `: ${pluralize(images.length, "image")}`;
  if (total) {
    const share = formatPercent(images.length / total);
    text += ` (${share} of the ${formatCount(total)} with this label)`;
  }
  const labelName = createHtml("b", {}, nameElement(data.classes[label]));
  const predictedName = createHtml("b", {}, nameElement(data.classes[predicted]));
  return ["Label ", labelName, ", predicted ", predictedName, text];
}

function zoomButtons(matrix) {
  function createButton(text, label, factor) {
    const zoom = () => matrix.zoomBy(factor);
    return createHtml("button", { type: "button", "aria-label": label, click: zoom }, text);
  }
  return [
    createButton("+", "Zoom in", 2),
    createButton("−", "Zoom out", 1 / 2),
    createButton("Fit", "Zoom to fit", 0),
  ];
}

// Let the reader choose between all classes and the most confused ones. Start with the latter if
// the cells of all classes are too small.
function addClassSelect(tools, matrix, counts) {
  const subset = mostConfusedClasses(counts, SUBSET_SIZE);
  if (subset.length < 2 || counts.size <= SUBSET_SIZE) return;
  const select = createHtml(
    "select",
    { change: update },
    createHtml("option", { value: "all" }, `all ${formatCount(counts.size)}`),
    createHtml("option", { value: "subset" }, `the ${subset.length} most confused`),
  );
  const status = createHtml("span", { class: "status", role: "status" });

  function update() {
    if (select.value === "all") {
      matrix.showAllClasses();
      status.textContent = "";
    } else {
      matrix.showClasses(subset);
      const total = pluralize(counts.mistakes, "mistake");
      status.textContent = `${formatCount(matrix.mistakes)} of ${total} are between them`;
    }
  }

  tools.append(createHtml("label", {}, "Classes: ", select), status);
  if (matrix.fittingCell < SMALLEST_CELL) {
    select.value = "subset";
    update();
  }
}

function legendEntries(matrix) {
  const entries = [legendEntry("correct", "correct", matrix.maxCorrect)];
  if (matrix.mistakes) entries.push(legendEntry("wrong", "mistakes", matrix.maxWrong));
  entries.push(createHtml("span", {}, "(images per cell, logarithmic)"));
  return entries;
}

function legendEntry(kind, text, maximum) {
  const gradient = createHtml("i", { class: kind, "aria-hidden": "true" });
  return createHtml("span", {}, `${text}: 1 `, gradient, ` ${formatCount(maximum)}`);
}
