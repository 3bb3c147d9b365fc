// Sort and filter tables. Of a long table, only the first rows are displayed at first.

const MIN_ROWS_FOR_FILTER = 12;
const INITIAL_ROWS = 100;
const LONG_TABLE_ROWS = 200; // keep in sync with blocks.html
const collator = new Intl.Collator("en", { numeric: true });

class SortableTable {
  constructor(block) {
    const table = block.querySelector("table");
    this.scroller = block.querySelector(".scroller");
    this.title = block.querySelector("h3").textContent;
    this.body = table.tBodies[0];
    this.headers = [...table.tHead.rows[0].cells];
    this.rows = [...this.body.rows];
    this.rowTexts = new Map(this.rows.map((row) => [row, row.textContent.toLowerCase()]));
    this.filter = "";
    this.limit = INITIAL_ROWS;
    this.status = createHtml("span", { role: "status", class: "status" });
    this.showAllButton = createHtml("button", {
      type: "button",
      class: "show-more",
      click: () => this.showAll(),
    });

    this.headers.forEach((header, column) => this.addSortButton(header, column));
    if (this.rows.length >= MIN_ROWS_FOR_FILTER) this.addFilter();
    block.append(this.showAllButton);
    this.update();
  }

  addSortButton(header, column) {
    const sort = () => this.sort(header, column);
    const button = createHtml("button", { type: "button", click: sort });
    const arrow = createHtml("span", { class: "arrow", "aria-hidden": "true" });
    button.append(...header.childNodes, arrow);
    header.append(button);
    header.setAttribute("aria-sort", "none");
  }

  addFilter() {
    const firstColumn = this.headers[0].textContent.toLowerCase();
    const input = createHtml("input", {
      type: "search",
      placeholder: `Filter by ${firstColumn} or value`,
      "aria-label": `Filter rows of ${this.title}`,
    });
    input.addEventListener("input", () => {
      this.filter = input.value.trim().toLowerCase();
      this.update();
    });
    this.scroller.before(createHtml("div", { class: "tools" }, input, this.status));
  }

  sort(header, column) {
    const isAscending = header.getAttribute("aria-sort") !== "ascending";
    for (const each of this.headers) each.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
    this.rows = sortRows(this.rows, column, isAscending ? 1 : -1);
    this.update();
  }

  showAll() {
    this.limit = Infinity;
    this.update();
    this.scroller.focus();
  }

  update() {
    const matching = this.rows.filter((row) => this.rowTexts.get(row).includes(this.filter));
    const displayed = matching.slice(0, this.limit);
    this.body.replaceChildren(...displayed);
    this.scroller.classList.toggle("long", displayed.length > LONG_TABLE_ROWS);
    this.showAllButton.hidden = displayed.length === matching.length;
    this.showAllButton.textContent = `Show all ${pluralize(matching.length, "row")}`;
    const total = pluralize(this.rows.length, "row");
    const isFiltered = matching.length < this.rows.length;
    this.status.textContent = isFiltered ? `${formatCount(matching.length)} of ${total}` : total;
  }
}

// Unknown values are last in both directions.
function sortRows(rows, column, sign) {
  const keyed = rows.map((row) => ({ row, key: sortKey(row.cells[column]) }));
  keyed.sort((first, second) => compareKeys(first.key, second.key, sign));
  return keyed.map(({ row }) => row);
}

function compareKeys(first, second, sign) {
  if (first === null || second === null) return (first === null) - (second === null);
  if (typeof first === "number") return sign * (first - second);
  return sign * collator.compare(first, second);
}

function sortKey(cell) {
  const { key } = cell.dataset;
  if (key === undefined) return cell.textContent === UNKNOWN ? null : cell.textContent;
  if (key === "") return null;
  return Number(key.replace("inf", "Infinity"));
}
