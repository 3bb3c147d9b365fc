// A confusion: the matrix, the largest confusions as a list, and the images behind the cell that was opened.

const LARGE_CELL = 24; // pixels; such cells need no zooming in
const SMALLEST_CELL = 9; // pixels; where more classes would not fit with such cells, a part is shown at first
const PART = 25; // classes

function buildConfusion(block) {
  const data = readData(block.dataset.source);
  const counts = countConfusion(data);
  const title = block.querySelector("h3").textContent;
  const readout = make("p", { class: "readout" }, "Choose a cell to see the images behind it.");
  const panel = make("section", { class: "behind", "aria-label": "Images behind the cell" });
  const status = make("p", { role: "status", class: "unseen" });
  const heard = (truth, answer) => {
    readout.replaceChildren(...cellText(data, counts, truth, answer));
    return readout.textContent;
  };
  const opened = (truth, answer) => {
    status.textContent = showImages(panel, data, counts.at(truth, answer));
    list.mark(truth, answer);
  };
  const key = make("p", { class: "key" });
  const matrix = new Matrix(counts, data.classes, title, {
    heard,
    opened,
    shown: () => key.replaceChildren(...keyOfColours(matrix)),
  });
  const list = largestConfusions(data, counts, (truth, answer) => {
    matrix.chooseClasses(truth, answer);
    heard(truth, answer);
    opened(truth, answer);
  });
  const tools = make("div", { class: "tools" });
  const axes = make("p", { class: "key" }, "↓ truth, → answer");
  const halves = make(
    "div",
    { class: counts.size > 8 ? "halves" : "halves few" },
    make("div", {}, axes, matrix.node, readout, key),
    make("div", {}, panel, list.node),
  );
  block.querySelector(".place").replaceChildren(summary(counts), tools, halves, status);
  matrix.showAll();
  offerPart(tools, matrix, counts);
  if (matrix.fit < LARGE_CELL) tools.append(...zoomButtons(matrix));
}

function summary(counts) {
  const right = (counts.images - counts.mistakes).toLocaleString("en");
  const mistakes = counts.mistakes
    ? `${counted(counts.mistakes, "mistake")} in ${counted(counts.wrong.length, "cell")}`
    : "no mistake";
  return make("p", { class: "summary" }, `${right} of ${counted(counts.images, "image")} right; ${mistakes}.`);
}

function cellText(data, counts, truth, answer) {
  const { images } = counts.at(truth, answer);
  const of = counts.perTruth[truth];
  const share = of ? ` (${percent(images.length / of)} of this truth's ${of.toLocaleString("en")})` : "";
  const [names, count] = [
    [truth, answer].map((place) => make("b", {}, nameOf(data.classes[place]))),
    counted(images.length, "image"),
  ];
  return ["Truth ", names[0], ", answered ", names[1], `: ${count}${share}`];
}

function zoomButtons(matrix) {
  const button = (text, label, factor) =>
    make("button", { type: "button", "aria-label": label, click: () => matrix.zoomBy(factor) }, text);
  return [button("+", "Zoom in", 2), button("−", "Zoom out", 1 / 2), button("Fit", "Zoom to fit", 0)];
}

// Offer the classes of the largest confusions alone, and begin with them where all would be too small to see.
function offerPart(tools, matrix, counts) {
  const part = ofLargestConfusions(counts, PART);
  if (part.length < 2 || counts.size <= PART) return;
  const choice = make(
    "select",
    { change: show },
    make("option", { value: "all" }, `all ${counts.size.toLocaleString("en")} classes`),
    make("option", { value: "part" }, `the ${part.length} of the largest confusions`),
  );
  const said = make("span", { class: "said", role: "status" });
  function show() {
    if (choice.value === "all") matrix.showAll();
    else matrix.show(part);
    said.textContent =
      choice.value === "all"
        ? ""
        : `${matrix.mistakes.toLocaleString("en")} of ${counted(counts.mistakes, "mistake")} lie among them`;
  }
  tools.append(make("label", {}, "Classes ", choice), said);
  if (matrix.fit >= SMALLEST_CELL) return;
  choice.value = "part";
  show();
}

function keyOfColours(matrix) {
  const part = (kind, text, most) =>
    make("span", {}, `${text}: 1 `, make("i", { class: kind, "aria-hidden": "true" }), ` ${most.toLocaleString("en")}`);
  const parts = [part("right", "right", matrix.mostRight)];
  if (matrix.mistakes) parts.push(part("wrong", "mistakes", matrix.mostWrong));
  return [...parts, make("span", {}, "(images a cell, on a logarithmic scale)")];
}
