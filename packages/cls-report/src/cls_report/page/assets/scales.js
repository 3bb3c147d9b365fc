// Linear scales and axis ticks.

// A function from values to pixels; its property `invert` is the inverse.
function linearScale([from, to], [start, end]) {
  const span = to - from || 1;
  const toPixel = (value) => start + ((value - from) / span) * (end - start);
  toPixel.invert = (pixel) => from + ((pixel - start) / (end - start)) * span;
  return toPixel;
}

function valueRange(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (isMissing(value)) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return low <= high ? [low, high] : [0, 1];
}

// A step of 1, 2, or 5 times a power of ten that divides the span into about `count` parts.
function roundStep(span, count, unit) {
  const exactStep = span / count;
  const power = 10 ** Math.floor(Math.log10(exactStep));
  const factor = [1, 2, 5, 10].find((each) => each * power >= exactStep * 0.999);
  const step = factor * power;
  return unit === "count" ? Math.max(1, Math.round(step)) : step;
}

function axisTicks([low, high], count, unit) {
  const step = roundStep(high - low || 1, count, unit);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  const ticks = [];
  for (let index = first; index <= last; index += 1) ticks.push(index * step);
  return ticks;
}

// A range with round ends. It includes 0 unless that would flatten the curve.
function roundRange([low, high], unit, tickCount) {
  if (unit === "share" && low >= 0 && high <= 1 && high - low > 0.6) return [0, 1];
  if (low >= 0 && low < 0.4 * high) low = 0;
  if (low === high && low === 0) high = 1;
  if (low === high) {
    const margin = Math.abs(low) * 0.1;
    low -= margin;
    high += margin;
  }
  const step = roundStep(high - low, tickCount, unit);
  const from = Math.floor(low / step + 1e-9) * step;
  const to = Math.ceil(high / step - 1e-9) * step;
  return unit === "share" && high <= 1 ? [from, Math.min(to, 1)] : [from, to];
}

function formatTick(value, step, unit) {
  if (unit === "share") return formatPercent(value, step < 0.00999 ? 1 : 0);
  if (Math.abs(value) < step * 1e-6) return "0";
  if (step < 1e-5 || Math.abs(value) >= 1e9) {
    return value.toExponential(0).replaceAll("-", MINUS);
  }
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const options = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
  return value.toLocaleString("en", options).replace("-", MINUS);
}
