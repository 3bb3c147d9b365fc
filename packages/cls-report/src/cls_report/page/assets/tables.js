// Tables that are in the page already: sorted by their heads, filtered by a word; of long ones the first rows are shown.

const FILTERED_FROM = 12; // rows
const ROWS_AT_FIRST = 100;
const LONG = 200; // rows, as in blocks.html
const collator = new Intl.Collator("en", { numeric: true });

class SortedTable {
  constructor(block) {
    const table = block.querySelector("table");
    this.block = block;
    this.scroller = block.querySelector(".scroller");
    this.title = block.querySelector("h3").textContent;
    this.body = table.tBodies[0];
    this.heads = [...table.tHead.rows[0].cells];
    this.rows = [...this.body.rows];
    this.texts = new Map(this.rows.map((row) => [row, row.textContent.toLowerCase()]));
    this.word = "";
    this.limit = ROWS_AT_FIRST;
    this.said = make("span", { role: "status", class: "said" });
    this.more = make("button", { type: "button", class: "more", click: () => this.showAll() });
    this.heads.forEach((head, column) => this.offerSort(head, column));
    if (this.rows.length >= FILTERED_FROM) this.offerFilter(this.heads[0].textContent);
    block.append(this.more);
    this.show();
  }

  offerSort(head, column) {
    const button = make("button", { type: "button", click: () => this.sort(head, column) });
    button.append(...head.childNodes, make("span", { class: "arrow", "aria-hidden": "true" }));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  }

  offerFilter(what) {
    const field = make("input", {
      type: "search",
      placeholder: `Filter, such as by ${what.toLowerCase()}`,
      "aria-label": `Filter the rows of: ${this.title}`,
    });
    field.addEventListener("input", () => {
      this.word = field.value.trim().toLowerCase();
      this.show();
    });
    this.scroller.before(make("div", { class: "tools" }, field, this.said));
  }

  sort(head, column) {
    const direction = head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    for (const each of this.heads) each.setAttribute("aria-sort", each === head ? direction : "none");
    this.rows = sorted(this.rows, column, direction === "ascending" ? 1 : -1);
    this.show();
  }

  showAll() {
    this.limit = Infinity;
    this.show();
    this.scroller.focus();
  }

  show() {
    const found = this.rows.filter((row) => this.texts.get(row).includes(this.word));
    const [all, left] = [this.rows.length, found.length - this.limit];
    this.scroller.classList.toggle("long", Math.min(found.length, this.limit) > LONG);
    this.body.replaceChildren(...found.slice(0, this.limit));
    this.more.hidden = left <= 0;
    this.more.textContent = `Show all ${counted(found.length, "row")}`;
    this.said.textContent =
      found.length === all ? counted(all, "row") : `${found.length.toLocaleString("en")} of ${counted(all, "row")}`;
  }
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
