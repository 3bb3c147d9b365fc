// The images of one cell of a confusion matrix.

const INITIAL_IMAGES = 12; // about as high as the matrix beside them
const IMAGES_PER_PAGE = 48;

// Fill the panel with the images of a cell, and return a description for screen readers. Mistakes
// start with the highest confidence, correct predictions with the lowest.
function showCellImages(panel, data, { label, predicted, images }) {
  const isCorrect = label === predicted;
  const sign = isCorrect ? 1 : -1;
  const ordered = [...images].sort((first, second) => {
    return sign * (data.confidence[first] - data.confidence[second]);
  });
  const included = ordered.filter((image) => data.images[image] >= 0);
  const missing = ordered.filter((image) => data.images[image] < 0);

  const labelName = nameElement(data.classes[label]);
  const predictedName = nameElement(data.classes[predicted]);
  const heading = createHtml("h4", {}, "Label ", labelName, ", predicted ", predictedName);
  let note = pluralize(images.length, "image");
  if (images.length > 1) note += `, ${isCorrect ? "lowest" : "highest"} confidence first`;
  panel.replaceChildren(heading, createHtml("p", { class: "note" }, note));

  if (included.length) {
    const list = createHtml("ul", { class: "thumbnails" });
    const container = createHtml("div", {}, list);
    panel.append(container);
    addThumbnails(container, list, data, included, INITIAL_IMAGES);
  }
  let description = `${heading.textContent}: ${note}`;
  if (missing.length) {
    const title = `${formatCount(missing.length)} not included in this page`;
    panel.append(missingImages(data, missing, title, !included.length));
    description += `; ${title}`;
  }
  return description;
}

function addThumbnails(container, list, data, images, count) {
  list.append(...images.slice(0, count).map((image) => thumbnail(data, image)));
  const remaining = images.slice(count);
  if (remaining.length) {
    addShowMoreButton(container, remaining.length, () => {
      addThumbnails(container, list, data, remaining, IMAGES_PER_PAGE);
    });
  }
}

function thumbnail(data, image) {
  const label = data.classes[data.labels[image]];
  const predicted = data.classes[data.predicted[image]];
  const name = data.names[image];
  const alt = `label ${visibleName(label)}, predicted ${visibleName(predicted)}`;
  const picture = createHtml("img", { src: imageUrl(data.images[image]), alt });
  const caption = createHtml(
    "figcaption",
    {},
    createHtml("p", { class: "confidence" }, confidenceText(data, image)),
    createHtml(
      "p",
      { class: "line" },
      "label ",
      nameElement(label),
      ", predicted ",
      nameElement(predicted),
    ),
    createHtml("p", { class: "name", title: name }, pathElement(name)),
  );
  const figure = createHtml("figure", { class: "item" }, enlargeButton([picture]), caption);
  return createHtml("li", {}, figure);
}

function confidenceText(data, image) {
  return `confidence ${formatPercent(data.confidence[image] / 1000)}`;
}

// A list of images whose thumbnails are not in the page.
function missingImages(data, images, title, isOpen) {
  const list = createHtml("ul");
  for (const image of images.slice(0, IMAGES_PER_PAGE)) {
    const confidence = createHtml("b", {}, confidenceText(data, image));
    list.append(createHtml("li", {}, confidence, " ", pathElement(data.names[image])));
  }
  const remaining = images.length - IMAGES_PER_PAGE;
  if (remaining > 0) list.append(createHtml("li", {}, `and ${formatCount(remaining)} more`));
  const summary = createHtml("summary", {}, title);
  return createHtml("details", { class: "missing-images", open: isOpen }, summary, list);
}
