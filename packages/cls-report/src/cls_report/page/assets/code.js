// A button that copies a block of code.

function offerCopy(block) {
  const code = block.querySelector("code");
  const said = make("span", { role: "status", class: "said" });
  const title = block.querySelector("h3").textContent;
  const button = make("button", { type: "button", "aria-label": `Copy: ${title}`, click: copy }, "Copy");
  async function copy() {
    said.textContent = (await copied(code)) ? "copied" : "selected: press Ctrl+C";
    setTimeout(() => (said.textContent = ""), 4000);
  }
  block.querySelector("pre").before(make("div", { class: "tools" }, button, said));
}

// Pages opened from disk may be denied the clipboard: then the older command, and then a selection to copy by hand.
async function copied(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}
