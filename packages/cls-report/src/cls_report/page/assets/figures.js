// How figures are written, as in page_figures.py.

const UNKNOWN = "–";

function significant(value, digits = 4) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e9) return value.toExponential(1).replaceAll("-", "−");
  const places = Math.min(Math.max(digits - 1 - Math.floor(Math.log10(size)), 0), 6);
  return value.toLocaleString("en", { minimumFractionDigits: 0, maximumFractionDigits: places }).replace("-", "−");
}

function percent(share, places = 1) {
  return `${(100 * share).toFixed(places).replace("-", "−")}\u202f%`;
}

function figureOf(value, unit) {
  if (value === null || value === undefined) return UNKNOWN;
  return unit === "share" ? percent(value) : significant(value, unit === "count" ? 12 : 4);
}

function counted(count, one, many = `${one}s`) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
