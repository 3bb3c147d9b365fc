// A confusion: the matrix, the largest confusions as a list, and the images behind the cell that was opened.

const CROPS_AT_ONCE = 48;
const LISTED_AT_ONCE = 12;
const SMALLEST_CELL = 9; // pixels; of more classes than fit with such cells, those with the most mistakes are shown first
const MOST_MISTAKEN = 25;

function buildConfusion(block) {
  const data = readData(block.dataset.source);
  const counts = countConfusion(data);
  const title = block.querySelector("h3").textContent;
  const readout = make("p", { class: "readout" });
  const panel = make("section", { class: "behind", "aria-label": "Images behind the cell" });
  const status = make("p", { role: "status", class: "unseen" });
  const heard = (truth, answer) => {
    readout.replaceChildren(...cellText(data, counts, truth, answer));
    return readout.textContent;
  };
  const open = (truth, answer) => {
    status.textContent = showImages(panel, data, counts.at(truth, answer));
    list.mark(truth, answer);
  };
  const matrix = new Matrix(counts, data.classes, title, { heard, opened: open });
  const list = largestConfusions(data, counts, (truth, answer) => {
    matrix.chooseClasses(truth, answer);
    heard(truth, answer);
    open(truth, answer);
  });
  const tools = make("div", { class: "tools" }, ...zoomButtons(matrix));
  const beside = make("div", { class: "beside" }, panel, list.node);
  block.querySelector(".place").replaceChildren(summary(counts), tools, make("div", { class: "halves" }, make("div", {}, matrix.node, readout, matrixKey()), beside), status);
  offerFewer(tools, matrix, counts);
  readout.textContent = "Choose a cell to see the images behind it.";
}

function summary(counts) {
  const right = counts.images - counts.mistakes;
  const text = `${right.toLocaleString("en")} of ${counted(counts.images, "image")} right; ${counted(counts.mistakes, "mistake")} in ${counted(counts.wrong.length, "cell")}.`;
  return make("p", { class: "summary" }, text);
}

function cellText(data, counts, truth, answer) {
  const { images } = counts.at(truth, answer);
  const share = counts.perTruth[truth] ? ` (${percent(images.length / counts.perTruth[truth])} of that truth's ${counts.perTruth[truth].toLocaleString("en")})` : "";
  return ["Truth ", make("b", {}, nameOf(data.classes[truth])), ", answered ", make("b", {}, nameOf(data.classes[answer])), `: ${counted(images.length, "image")}${share}`];
}

function zoomButtons(matrix) {
  const button = (text, label, factor) => make("button", { type: "button", "aria-label": label, click: () => matrix.zoomBy(factor) }, text);
  return [button("+", "Zoom in", 1.6), button("−", "Zoom out", 1 / 1.6), button("Fit", "Zoom to fit", 0)];
}

function offerFewer(tools, matrix, counts) {
  matrix.measure();
  const few = mostMistaken(counts, MOST_MISTAKEN);
  if (few.length < 2 || counts.size <= MOST_MISTAKEN) return;
  const all = matrix.classes;
  const choice = make("select", { change: () => matrix.show(choice.value === "all" ? all : few) },
    make("option", { value: "all" }, `all ${counts.size} classes`),
    make("option", { value: "few" }, `the ${few.length} with most mistakes`));
  tools.append(make("label", {}, "Show ", choice));
  if (matrix.fit >= SMALLEST_CELL) return;
  choice.value = "few";
  matrix.show(few);
}

function matrixKey() {
  const part = (kind, text) => make("span", { class: kind }, make("i", { "aria-hidden": "true" }), text);
  return make("p", { class: "key" }, part("right", "right"), part("wrong", "mistakes"), "darker is more, on a logarithmic scale");
}

function largestConfusions(data, counts, chosen) {
  const buttons = new Map();
  const list = make("ol");
  const node = make("div", { class: "largest" }, make("h4", {}, "Largest confusions"), list);
  if (!counts.wrong.length) list.replaceWith(make("p", { class: "note" }, "There is no mistake."));
  const most = counts.wrong[0]?.images.length ?? 1;
  function add(from) {
    counts.wrong.slice(from, from + LISTED_AT_ONCE).forEach((cell) => {
      const { truth, answer, images } = cell;
      const button = make("button", { type: "button", "aria-pressed": "false", style: `--share: ${(100 * images.length) / most}%`, click: () => chosen(truth, answer) },
        make("span", { class: "pair" }, make("span", {}, nameOf(data.classes[truth])), make("span", { class: "taken" }, " taken for "), make("span", {}, nameOf(data.classes[answer]))),
        make("span", { class: "count" }, images.length.toLocaleString("en")));
      buttons.set(`${truth} ${answer}`, button);
      list.append(make("li", {}, button));
    });
    const left = counts.wrong.length - from - LISTED_AT_ONCE;
    if (left > 0) offerMore(node, left, () => add(from + LISTED_AT_ONCE));
  }
  add(0);
  const mark = (truth, answer) => {
    for (const [key, button] of buttons) button.setAttribute("aria-pressed", key === `${truth} ${answer}`);
  };
  return { node, mark };
}

function offerMore(node, left, add) {
  const button = make("button", { type: "button", class: "more" }, `Show more (${left.toLocaleString("en")} left)`);
  button.addEventListener("click", () => {
    button.remove();
    add();
  });
  node.append(button);
}

// Fill the panel with the images of a cell, mistakes surest first and right answers least sure first; say what it is.
function showImages(panel, data, { truth, answer, images }) {
  const sign = truth === answer ? 1 : -1;
  const ordered = [...images].sort((one, other) => sign * (data.confidence[one] - data.confidence[other]));
  const shown = ordered.filter((index) => data.pictures[index] >= 0);
  const absent = ordered.filter((index) => data.pictures[index] < 0);
  const heading = make("h4", {}, "Truth ", nameOf(data.classes[truth]), ", answered ", nameOf(data.classes[answer]));
  const crops = make("ul", { class: "crops" });
  const order = truth === answer ? "least sure first" : "surest first";
  const missing = absent.length ? `; ${absent.length.toLocaleString("en")} without a picture in this file` : "";
  const said = `${counted(images.length, "image")}${images.length > 1 ? `, ${order}` : ""}${missing}`;
  panel.replaceChildren(heading, make("p", { class: "note" }, said), crops);
  addCrops(panel, crops, data, shown, 0);
  if (absent.length) panel.append(withoutPictures(data, absent));
  return `${heading.textContent}: ${said}`;
}

function addCrops(panel, crops, data, images, from) {
  crops.append(...images.slice(from, from + CROPS_AT_ONCE).map((index) => crop(data, index)));
  const left = images.length - from - CROPS_AT_ONCE;
  if (left > 0) offerMore(panel, left, () => addCrops(panel, crops, data, images, from + CROPS_AT_ONCE));
}

function crop(data, index) {
  const [truth, answer] = [data.classes[data.truth[index]], data.classes[data.answer[index]]];
  const image = make("img", { src: pictureAt(data.pictures[index]), alt: `truth ${truth}, answered ${answer}`, title: data.names[index] });
  return make("li", {}, make("figure", { class: "shown" }, image, make("figcaption", {},
    make("p", { class: "line" }, nameOf(truth), " → ", nameOf(answer), ` ${percent(data.confidence[index] / 1000)}`),
    make("p", { class: "name", title: data.names[index] }, nameOf(data.names[index])))));
}

function withoutPictures(data, images) {
  const lines = images.slice(0, CROPS_AT_ONCE).map((index) =>
    make("li", {}, nameOf(data.names[index]), ` ${percent(data.confidence[index] / 1000)}`));
  const left = images.length - lines.length;
  if (left > 0) lines.push(make("li", {}, `and ${left.toLocaleString("en")} more`));
  return make("details", { class: "absent" }, make("summary", {}, `${counted(images.length, "image")} without a picture in this file`), make("ul", {}, ...lines));
}
