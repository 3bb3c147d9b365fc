// A button that copies a code block.

const MESSAGE_DURATION = 4000; // ms

function addCopyButton(block) {
  const code = block.querySelector("code");
  const title = block.querySelector("h3").textContent;
  const status = createHtml("span", { role: "status", class: "status" });

  async function copy() {
    const copied = await copyText(code);
    status.textContent = copied ? "Copied" : "Selected: press Ctrl+C to copy";
    setTimeout(() => (status.textContent = ""), MESSAGE_DURATION);
  }

  const attributes = { type: "button", "aria-label": `Copy: ${title}`, click: copy };
  const button = createHtml("button", attributes, "Copy");
  block.querySelector("pre").before(createHtml("div", { class: "tools" }, button, status));
}

// Pages opened from disk may be denied the clipboard. Then try the older command, and otherwise
// leave the text selected.
async function copyText(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(code);
    return document.execCommand("copy");
  }
}
