// From values to places on the screen, and the round values that an axis names.

function scale([from, to], [start, end]) {
  const span = to - from || 1;
  const place = (value) => start + ((value - from) / span) * (end - start);
  place.value = (pixel) => from + ((pixel - start) / (end - start)) * span;
  return place;
}

function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value === null || value === undefined) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 1];
}

// About `wanted` steps of 1, 2 or 5 times a power of ten; whole ones for counts.
function roundStep(span, wanted, unit) {
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((each) => each * power >= rough * 0.999) * power;
  return unit === "count" ? Math.max(1, Math.round(step)) : step;
}

function ticks([low, high], wanted, unit) {
  const step = roundStep(high - low || 1, wanted, unit);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, index) => (first + index) * step);
}

// A range that ends on round values, and begins at nothing where that does not flatten what is to be seen.
function roundRange([low, high], unit, wanted) {
  if (unit === "share" && low >= 0 && high <= 1 && high - low > 0.6) return [0, 1];
  if (low >= 0 && low < 0.4 * high) low = 0;
  if (low === high) [low, high] = low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
  const step = roundStep(high - low, wanted, unit);
  const [from, to] = [Math.floor(low / step + 1e-9) * step, Math.ceil(high / step - 1e-9) * step];
  return unit === "share" && high <= 1 ? [from, Math.min(to, 1)] : [from, to];
}

function tickText(value, step, unit) {
  if (unit === "share") return `${(100 * value).toFixed(step < 0.00999 ? 1 : 0).replace("-", "−")}\u202f%`;
  if (Math.abs(value) < step * 1e-6) return "0";
  if (step < 1e-5 || Math.abs(value) >= 1e9) return value.toExponential(0).replaceAll("-", "−");
  const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return value.toLocaleString("en", { minimumFractionDigits: places, maximumFractionDigits: places }).replace("-", "−");
}
