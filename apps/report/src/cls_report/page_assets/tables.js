// Tables that are in the page already: sorted by their heads, filtered by a word.

const FILTERED_FROM = 12;
const collator = new Intl.Collator("en", { numeric: true });

function makeSortable(block) {
  const table = block.querySelector("table");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  heads.forEach((head, column) => {
    const button = make("button", { type: "button", click: () => sort(head, column) });
    button.append(...head.childNodes, make("span", { class: "arrow", "aria-hidden": "true" }));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
  function sort(head, column) {
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    heads.forEach((each) => each.setAttribute("aria-sort", each === head ? direction : "none"));
    body.append(...sorted(rows, column, direction === "ascending" ? 1 : -1));
  }
  if (rows.length >= FILTERED_FROM) offerFilter(block, rows, heads[0].textContent);
}

// What is unknown comes last in either direction.
function sorted(rows, column, sign) {
  const keyed = rows.map((row) => ({ row, key: keyOf(row.cells[column]) }));
  keyed.sort((one, other) => {
    if (one.key === null || other.key === null) return (one.key === null) - (other.key === null);
    return sign * (typeof one.key === "number" ? one.key - other.key : collator.compare(one.key, other.key));
  });
  return keyed.map(({ row }) => row);
}

function keyOf(cell) {
  const { key } = cell.dataset;
  if (key === undefined) return cell.textContent === UNKNOWN ? null : cell.textContent;
  return key === "" ? null : Number(key.replace("inf", "Infinity"));
}

function offerFilter(block, rows, what) {
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const said = make("span", { role: "status", class: "said" }, counted(rows.length, "row"));
  const field = make("input", { type: "search", placeholder: `Filter, such as by ${what.toLowerCase()}`, input: filter });
  field.setAttribute("aria-label", `Filter the rows of: ${block.querySelector("h3").textContent}`);
  function filter() {
    const word = field.value.trim().toLowerCase();
    let left = 0;
    rows.forEach((row, index) => {
      row.hidden = !texts[index].includes(word);
      left += !row.hidden;
    });
    said.textContent = left === rows.length ? counted(left, "row") : `${left} of ${counted(rows.length, "row")}`;
  }
  block.querySelector(".scroller").before(make("div", { class: "tools" }, field, said));
}
