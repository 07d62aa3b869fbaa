// How numbers and tokens are written.

const LONGEST = 32; // characters of a token that are shown

/** A number to some significant digits. */
function number(value, digits = 3) {
  if (Number.isNaN(value)) return "undefined";
  if (!Number.isFinite(value)) return value < 0 ? "−∞" : "∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(digits - 1).replace("-", "−");
  const rounded = size >= 10 ** digits ? Math.round(value) : Number(value.toPrecision(digits));
  return rounded.toLocaleString("en", { maximumSignificantDigits: 21 }).replace("-", "−");
}

function counted(value) {
  return value.toLocaleString("en");
}

/** 1st, 2nd, 3rd, … */
function ordinal(count) {
  const ending = { 1: "st", 2: "nd", 3: "rd" }[count % 10];
  return `${count}${count % 100 > 10 && count % 100 < 14 ? "th" : (ending ?? "th")}`;
}

/** A token with everything in it visible: spaces at its ends, line ends, control characters. */
function visible(token) {
  const shown = token
    .replace(/^ +| +$/g, (spaces) => "␣".repeat(spaces.length))
    .replace(/\n/g, "↵")
    .replace(/\t/g, "⇥")
    .replace(/[\u0000-\u001f]/g, (control) => String.fromCharCode(0x2400 + control.charCodeAt(0)))
    .replace(/[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "�");
  const characters = Array.from(shown);
  if (characters.length > LONGEST) return `${characters.slice(0, LONGEST - 1).join("")}…`;
  return shown || "∅";
}

/** What to call a head: "head 3" where its name is only a number. */
function headNamed(name) {
  return /^\d+$/.test(name) ? `head ${name}` : visible(name);
}

/** The visible label of a token: its number where it has none. */
function labelAt(labels, index) {
  return labels ? visible(labels[index]) : String(index);
}

/** A token in running text: “the” (12), or 12. */
function quoted(labels, index) {
  return labels ? `“${labelAt(labels, index)}” (${index})` : String(index);
}

/** Tokens first … last − 1 in running text, after their singular name. */
function spanned(name, labels, [first, last]) {
  if (last - first === 1) return `${name} ${quoted(labels, first)}`;
  const plural = name === "query" ? "queries" : "keys";
  const text = labels ? ` “${labelAt(labels, first)}” … “${labelAt(labels, last - 1)}”` : "";
  return `${plural} ${first}–${last - 1}${text}`;
}

/** An element with properties and children; text is only ever set as text. */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}
