// Galleries, and the dialog that enlarges an image.

const ENLARGED_HEIGHT = 360; // px
const MAX_ENLARGEMENT = 12;

function loadGallery(block) {
  for (const image of block.querySelectorAll("img")) {
    image.src = imageUrl(Number(image.dataset.image)) ?? "";
  }
  for (const images of block.querySelectorAll(".images")) {
    images.replaceWith(enlargeButton([...images.children]));
  }
}

function enlargeButton(images) {
  return createHtml(
    "button",
    {
      type: "button",
      class: "images",
      "aria-haspopup": "dialog",
      click: (event) => openLightbox(event.currentTarget),
    },
    ...images,
  );
}

// Enlarge the images of a button. The arrow keys move to the other buttons of its list.
function openLightbox(button) {
  const buttons = [...button.closest("ul").querySelectorAll("button.images")];
  let index = buttons.indexOf(button);
  const content = createHtml("div", { class: "content", "aria-live": "polite" });

  function show(newIndex) {
    index = (newIndex + buttons.length) % buttons.length;
    content.replaceChildren(...lightboxContent(buttons[index]));
  }

  const previous = { type: "button", "aria-label": "Previous", click: () => show(index - 1) };
  const next = { type: "button", "aria-label": "Next", click: () => show(index + 1) };
  const tools = createHtml(
    "div",
    { class: "tools" },
    createHtml("button", previous, "←"),
    createHtml("button", next, "→"),
    createHtml("button", { type: "button", click: () => dialog.close() }, "Close"),
  );
  const attributes = { class: "lightbox", "aria-label": "Enlarged image" };
  const dialog = createHtml("dialog", attributes, content, tools);
  dialog.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft") show(index - 1);
    if (key === "ArrowRight") show(index + 1);
  });
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => {
    dialog.remove();
    buttons[index].focus();
  });
  document.body.append(dialog);
  show(index);
  dialog.showModal();
}

function lightboxContent(button) {
  const images = [...button.querySelectorAll("img")].map(enlargedImage);
  const caption = button.nextElementSibling.cloneNode(true);
  const itemClass = button.closest("figure").className;
  return [
    createHtml("div", { class: "images" }, ...images),
    createHtml("div", { class: itemClass }, caption),
  ];
}

// Small crops are enlarged without smoothing.
function enlargedImage(image) {
  const copy = image.cloneNode();
  const height = image.naturalHeight || ENLARGED_HEIGHT;
  copy.style.height = `${Math.min(ENLARGED_HEIGHT, MAX_ENLARGEMENT * height)}px`;
  copy.classList.toggle("pixelated", image.naturalHeight * 3 < ENLARGED_HEIGHT);
  return copy;
}
