// Colours: one ramp of even steps in lightness, so that it reads without telling hues apart.
// More attention is farther from the paper: darker on light paper, lighter on dark.

const STOPS = [
  "#f9fad7",
  "#baeaac",
  "#60d8a3",
  "#22baa9",
  "#129aa2",
  "#107a94",
  "#055c85",
  "#063c78",
  "#1a2251",
];
const SHADES = 256;

const theme = { dark: false, shades: new Uint8ClampedArray(SHADES * 3) };

/** Take over the theme in force: the button's choice, else the system's. */
function readTheme() {
  const chosen = document.documentElement.dataset.theme;
  theme.dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const stops = STOPS.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  if (theme.dark) stops.reverse();
  for (let shade = 0; shade < SHADES; shade++) {
    const place = (shade / (SHADES - 1)) * (stops.length - 1);
    const from = Math.min(Math.floor(place), stops.length - 2);
    for (let c = 0; c < 3; c++) {
      theme.shades[3 * shade + c] = stops[from][c] + (place - from) * (stops[from + 1][c] - stops[from][c]);
    }
  }
}

/** The place in the table of a tone from 0 to 1. */
function shadeOf(tone) {
  return Math.round(Math.min(Math.max(tone, 0), 1) * (SHADES - 1));
}

function colourOf(tone) {
  const at = 3 * shadeOf(tone);
  return `rgb(${theme.shades[at]} ${theme.shades[at + 1]} ${theme.shades[at + 2]})`;
}

/** Text that can be read on that colour: black or white, whichever has the better contrast. */
function inkOn(tone) {
  const at = 3 * shadeOf(tone);
  const [red, green, blue] = Array.from(theme.shades.subarray(at, at + 3), (part) => (part / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000000" : "#ffffff";
}

/** A colour that page.css names. */
function named(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** From a weight to its tone, on a logarithmic scale from low to high. What is not 0 never looks like 0. */
function logScale([low, high]) {
  const span = Math.log(high / low) || 1;
  return (value) => (value > 0 ? Math.min(Math.max(Math.log(value / low) / span, 0.02), 1) : 0);
}

/** Make a canvas as sharp as the screen and clear it: its context, width and height in CSS pixels. */
function sheet(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  context.font = "12px system-ui, sans-serif";
  return { context, width, height };
}
