// The images behind a cell of a confusion matrix.

const CROPS_AT_FIRST = 12; // about as high as the matrix beside them
const CROPS_AT_ONCE = 48;

// Fill the panel with the images of a cell, mistakes surest first and right answers least sure first; say what it is.
function showImages(panel, data, { truth, answer, images }) {
  const sign = truth === answer ? 1 : -1;
  const ordered = [...images].sort((one, other) => sign * (data.confidence[one] - data.confidence[other]));
  const shown = ordered.filter((index) => data.pictures[index] >= 0);
  const absent = ordered.filter((index) => data.pictures[index] < 0);
  const heading = make("h4", {}, "Truth ", nameOf(data.classes[truth]), ", answered ", nameOf(data.classes[answer]));
  const order = truth === answer ? "least sure first" : "surest first";
  const said = `${counted(images.length, "image")}${images.length > 1 ? `, ${order}` : ""}`;
  panel.replaceChildren(heading, make("p", { class: "note" }, said));
  const crops = make("div", {}, make("ul", { class: "crops" }));
  if (shown.length) panel.append(crops);
  addCrops(crops, data, shown, 0, CROPS_AT_FIRST);
  const missing = `${absent.length.toLocaleString("en")} without a picture in this file`;
  if (absent.length) panel.append(withoutPictures(data, absent, missing, !shown.length));
  return `${heading.textContent}: ${said}${absent.length ? `; ${missing}` : ""}`;
}

function addCrops(node, data, images, from, count = CROPS_AT_ONCE) {
  node.firstChild.append(...images.slice(from, from + count).map((index) => crop(data, index)));
  const left = images.length - from - count;
  if (left > 0) offerMore(node, left, () => addCrops(node, data, images, from + count));
}

function crop(data, index) {
  const [truth, answer] = [data.truth[index], data.answer[index]].map((place) => wordOf(data.classes[place]));
  const image = make("img", { src: pictureAt(data.pictures[index]), alt: `truth ${truth}, answered ${answer}` });
  const lines = [
    make("p", { class: "sure" }, `${percent(data.confidence[index] / 1000)} sure`),
    make("p", { class: "line" }, "truth ", nameOf(truth), ", answered ", nameOf(answer)),
    make("p", { class: "name", title: data.names[index] }, pathOf(data.names[index])),
  ];
  return make("li", {}, make("figure", { class: "shown" }, enlarging([image]), make("figcaption", {}, ...lines)));
}

function withoutPictures(data, images, title, open) {
  const lines = images
    .slice(0, CROPS_AT_ONCE)
    .map((index) =>
      make("li", {}, make("b", {}, `${percent(data.confidence[index] / 1000)} sure`), " ", pathOf(data.names[index])),
    );
  const left = images.length - lines.length;
  if (left > 0) lines.push(make("li", {}, `and ${left.toLocaleString("en")} more`));
  return make("details", { class: "absent", open }, make("summary", {}, title), make("ul", {}, ...lines));
}
