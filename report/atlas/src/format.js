// Numbers and sentences as people read them. Rounded from the 4 significant digits that the page holds.

const MINUS = "\u2212";
const NO_BREAK = "\u00a0";

/** Fixed digits with a true minus sign; "n/a" for what was not computed. */
export function fixed(value, digits) {
  if (value == null || !Number.isFinite(value)) return "n/a";
  const text = value.toFixed(digits);
  return /^-0\.?0*$/.test(text) ? text.slice(1) : text.replace("-", MINUS);
}

const DIGITS = { "%": 1, points: 1, logits: 2, share: 2, score: 2 };

/** A value with its unit. */
export function quantity(value, unit = "") {
  if (value == null) return "not computed";
  const digits = DIGITS[unit] ?? (Math.abs(value) >= 100 ? 0 : 2);
  const shown = unit === "share" || unit === "score" || !unit ? "" : NO_BREAK + unit;
  return fixed(value, digits) + shown;
}

/** "[79.2, 87.0]" in the digits of the unit; empty where there is no interval. */
export function interval(low, high, unit = "") {
  if (low == null || high == null) return "";
  const digits = DIGITS[unit] ?? 2;
  return `[${fixed(low, digits)}, ${fixed(high, digits)}]`;
}

/** "83.1 % [79.2, 87.0]". */
export function estimate({ value, low, high }, unit) {
  if (value == null) return "not computed";
  const range = interval(low, high, unit);
  return quantity(value, unit) + (range ? ` ${range}` : "");
}

export function p(value) {
  if (value == null) return "n/a";
  if (value >= 0.001 || value === 0) return fixed(value, 3);
  const [digits, power] = value.toExponential(1).split("e-");
  return `${digits}${NO_BREAK}\u00d7${NO_BREAK}10\u207b${[...power].map((digit) => "\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079"[digit]).join("")}`;
}

export function count(n, noun) {
  return `${n}${NO_BREAK}${noun}${n === 1 ? "" : "s"}`;
}

/** Heads and MLPs of a list of ids: "7 heads and 2 MLPs". */
export function sizes(ids, mlp) {
  const mlps = ids.filter(mlp).length;
  return `${count(ids.length - mlps, "head")} and ${count(mlps, "MLP")}`;
}

/** A token as it stands in a line of text: spaces and line ends made visible. */
export function token(text) {
  return (
    String(text)
      .replace(/^[ \u0120\u2581]/, "\u00b7")
      .replaceAll("\n", "\u21b5")
      .replaceAll("\t", "\u21e5") || "\u2205"
  );
}
