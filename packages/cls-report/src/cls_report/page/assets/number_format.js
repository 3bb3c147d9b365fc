// Number formatting. Keep in sync with number_format.py.

const UNKNOWN = "–";
const MINUS = "−";

function isMissing(value) {
  return value === null || value === undefined;
}

function formatSignificant(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e9) return value.toExponential(1).replaceAll("-", MINUS);
  const decimals = digits - 1 - Math.floor(Math.log10(size));
  const options = { maximumFractionDigits: Math.min(Math.max(decimals, 0), 6) };
  return value.toLocaleString("en", options).replace("-", MINUS);
}

function formatPercent(share, decimals = 1) {
  return `${(100 * share).toFixed(decimals).replace("-", MINUS)}%`;
}

function formatValue(value, unit) {
  if (isMissing(value)) return UNKNOWN;
  if (unit === "share") return formatPercent(value);
  return formatSignificant(value, unit === "count" ? 12 : 4);
}

function formatCount(count) {
  return count.toLocaleString("en");
}

function pluralize(count, noun) {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}
