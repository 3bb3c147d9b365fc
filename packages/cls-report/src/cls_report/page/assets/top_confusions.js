// A list of the most frequent confusions. A click on one displays its images.

const CONFUSIONS_PER_PAGE = 12;

class TopConfusions {
  // `onChoose` is called with the label and the predicted class of the chosen confusion.
  constructor(data, counts, onChoose) {
    this.data = data;
    this.cells = counts.wrongCells;
    this.onChoose = onChoose;
    this.buttons = new Map();
    this.list = createHtml("ol");
    const heading = createHtml("h4", {}, "Most frequent confusions");
    this.element = createHtml("div", { class: "top-confusions" }, heading, this.list);
    if (!this.cells.length) {
      this.list.replaceWith(createHtml("p", { class: "note" }, "There are no mistakes."));
    }
    this.addPage(0);
  }

  addPage(start) {
    const end = start + CONFUSIONS_PER_PAGE;
    for (const cell of this.cells.slice(start, end)) {
      this.list.append(createHtml("li", {}, this.createButton(cell)));
    }
    const remaining = this.cells.length - end;
    if (remaining > 0) addShowMoreButton(this.element, remaining, () => this.addPage(end));
  }

  createButton({ label, predicted, images }) {
    const { classes } = this.data;
    const pair = createHtml(
      "span",
      { class: "class-pair" },
      nameElement(classes[label]),
      createHtml("span", { class: "predicted-as" }, " predicted as "),
      nameElement(classes[predicted]),
    );
    const choose = () => this.onChoose(label, predicted);
    const button = createHtml(
      "button",
      { type: "button", "aria-pressed": "false", click: choose },
      pair,
      createHtml("span", { class: "count" }, formatCount(images.length)),
    );
    const largest = this.cells[0].images.length;
    button.style.setProperty("--share", `${(100 * images.length) / largest}%`);
    this.buttons.set(`${label} ${predicted}`, button);
    return button;
  }

  highlight(label, predicted) {
    for (const [key, button] of this.buttons) {
      button.setAttribute("aria-pressed", key === `${label} ${predicted}`);
    }
  }
}

// A button that adds further list items and moves the focus to the first of them.
function addShowMoreButton(container, remaining, addItems) {
  const text = `Show more (${formatCount(remaining)} remaining)`;
  const button = createHtml("button", { type: "button", class: "show-more" }, text);
  button.addEventListener("click", () => {
    const before = container.querySelectorAll("li button").length;
    button.remove();
    addItems();
    container.querySelectorAll("li button")[before]?.focus();
  });
  container.append(button);
}
