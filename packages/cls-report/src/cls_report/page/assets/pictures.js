// Pictures: given their addresses when they come near the screen, and shown large, one after the other, on a click.

const ENLARGED = 360; // pixels of height, at most

function fillGallery(block) {
  for (const image of block.querySelectorAll("img")) image.src = pictureAt(Number(image.dataset.picture)) ?? "";
  for (const pictures of block.querySelectorAll(".pictures")) pictures.replaceWith(enlarging([...pictures.children]));
}

function enlarging(images) {
  return make(
    "button",
    {
      type: "button",
      class: "pictures",
      "aria-haspopup": "dialog",
      click: ({ currentTarget }) => enlarge(currentTarget),
    },
    ...images,
  );
}

function enlarge(button) {
  const all = [...button.closest("ul").querySelectorAll("button.pictures")];
  let place = all.indexOf(button);
  const content = make("div", { class: "content", "aria-live": "polite" });
  const step = (by) => () => {
    place = (place + by + all.length) % all.length;
    show();
  };
  const dialog = make(
    "dialog",
    { class: "enlarged", "aria-label": "Picture, enlarged" },
    content,
    make(
      "div",
      { class: "tools" },
      make("button", { type: "button", click: step(-1), "aria-label": "Previous" }, "←"),
      make("button", { type: "button", click: step(1), "aria-label": "Next" }, "→"),
      make("button", { type: "button", click: () => dialog.close() }, "Close"),
    ),
  );
  function show() {
    const images = [...all[place].querySelectorAll("img")].map(enlarged);
    const caption = all[place].nextElementSibling.cloneNode(true);
    content.replaceChildren(
      make("div", { class: "pictures" }, ...images),
      make("div", { class: all[place].closest("figure").className }, caption),
    );
  }
  dialog.addEventListener("keydown", ({ key }) => ({ ArrowLeft: step(-1), ArrowRight: step(1) })[key]?.());
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    all[place].focus();
  });
  document.body.append(dialog);
  show();
  dialog.showModal();
}

// A crop of a few pixels is shown by its pixels, a photograph smoothly.
function enlarged(image) {
  const large = image.cloneNode();
  large.style.height = `${Math.min(ENLARGED, 12 * (image.naturalHeight || ENLARGED))}px`;
  large.classList.toggle("pixels", image.naturalHeight * 3 < ENLARGED);
  return large;
}
