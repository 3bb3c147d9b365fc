// The largest confusions as a list of buttons, which open their images.

const LISTED_AT_ONCE = 12;

function largestConfusions(data, counts, chosen) {
  const buttons = new Map();
  const list = make("ol");
  const node = make("div", { class: "largest" }, make("h4", {}, "Largest confusions"), list);
  if (!counts.wrong.length) list.replaceWith(make("p", { class: "note" }, "There is no mistake."));
  const most = counts.wrong[0]?.images.length ?? 1;
  function add(from) {
    for (const { truth, answer, images } of counts.wrong.slice(from, from + LISTED_AT_ONCE)) {
      const names = [
        nameOf(data.classes[truth]),
        make("span", { class: "taken" }, " taken for "),
        nameOf(data.classes[answer]),
      ];
      const button = make(
        "button",
        { type: "button", "aria-pressed": "false", click: () => chosen(truth, answer) },
        make("span", { class: "pair" }, ...names),
        make("span", { class: "count" }, images.length.toLocaleString("en")),
      );
      button.style.setProperty("--share", `${(100 * images.length) / most}%`);
      buttons.set(`${truth} ${answer}`, button);
      list.append(make("li", {}, button));
    }
    const left = counts.wrong.length - from - LISTED_AT_ONCE;
    if (left > 0) offerMore(node, left, () => add(from + LISTED_AT_ONCE));
  }
  add(0);
  const mark = (truth, answer) => {
    for (const [key, button] of buttons) button.setAttribute("aria-pressed", key === `${truth} ${answer}`);
  };
  return { node, mark };
}

// A button that adds what is left; the focus goes on to the first of what was added.
function offerMore(node, left, add) {
  const button = make("button", { type: "button", class: "more" }, `Show more (${left.toLocaleString("en")} left)`);
  button.addEventListener("click", () => {
    const last = [...node.querySelectorAll("li button")].at(-1);
    button.remove();
    add();
    const all = [...node.querySelectorAll("li button")];
    all[all.indexOf(last) + 1]?.focus();
  });
  node.append(button);
}
