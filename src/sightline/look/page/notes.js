// The legend of the colours, and what the page says about its own exactness.

/** The scale's colours, with numbers under them. */
function drawLegend() {
  const { scale } = state.picture;
  if (!scale) return at("legend").replaceChildren();
  const ramp = element("canvas", { className: "ramp", role: "img" });
  ramp.ariaLabel = `Colours from ${number(scale[0])} to ${number(scale[1])}, logarithmic`;
  const none = element("span", { className: "none", ariaHidden: "true" });
  const what = element("span", { className: "quiet", textContent: "weight, in the mean over a cell" });
  at("legend").replaceChildren(none, element("span", { textContent: "0" }), ramp, what);
  if (state.picture.topKeys && !state.picture.maps.some((map) => hasWeights(state.picture, map))) {
    const single = "zoomed in, squares are single top weights: their share of the cell";
    at("legend").append(element("span", { className: "quiet", textContent: `· ${single}` }));
  }
  const { context, width, height } = sheet(ramp);
  const bar = height - 16;
  for (let x = 0; x < width; x++) {
    context.fillStyle = colourOf(x / (width - 1));
    context.fillRect(x, 0, 1, bar);
  }
  Object.assign(context, { fillStyle: named("quiet"), strokeStyle: named("quiet"), textBaseline: "bottom" });
  const span = Math.log(scale[1] / scale[0]);
  const round = powers(...scale);
  const marks =
    round.length > 2
      ? round
      : [...round, ...[2, 5].flatMap((n) => powers(scale[0] / n, scale[1] / n).map((p) => n * p))];
  for (const value of marks) {
    const x = (Math.log(value / scale[0]) / span) * width;
    context.textAlign = x < 20 ? "left" : x > width - 20 ? "right" : "center";
    context.fillRect(Math.min(x, width - 1), bar, 1, 4);
    context.fillText(number(value, 1), x, height);
  }
}

/** What the page carries, and how exactly. */
function makeNotes() {
  const { series, maps, topKeys, notes } = state.picture;
  const lines = [
    "Everything on this page is in this one file; it fetches nothing.",
    ...seriesNotes(series),
    ...maps.map((map) => {
      const cells = hasWeights(state.picture, map) ? "every single weight" : "sums over its cells";
      return `Map of ${counted(map.rows)} × ${counted(map.columns)}: ${cells}, ${exactness(map.codec)}.`;
    }),
  ];
  if (topKeys) {
    const which =
      topKeys.every === 1
        ? "every query"
        : `every ${ordinal(topKeys.every)} query, so that the page stays small`;
    lines.push(`The ${topKeys.count} largest weights of ${which}: ${exactness(topKeys.codec)}.`);
  }
  if (maps.length)
    lines.push(
      "Colours: one logarithmic scale for all heads; a cell without any weight has the colour of the paper.",
    );
  at("notes").replaceChildren(...[...lines, ...notes].map((textContent) => element("li", { textContent })));
}

/** Entropy, Received, …: the names that are kept alike in one line. */
function seriesNotes(series) {
  const alike = new Map();
  for (const [name, [title]] of Object.entries(FACTS)) {
    if (!series[name]) continue;
    const how = exactness(series[name].codec);
    alike.set(how, [...(alike.get(how) ?? []), title]);
  }
  return [...alike].map(([how, titles]) => `${titles.join(", ")}: ${how}.`);
}

function exactness({ kind, bits, error }) {
  if (kind === "float32") return "as computed, in float32";
  return kind === "log"
    ? `${bits} bits, within ${number(100 * error, 2)} %`
    : `${bits} bits, within ${number(error, 2)}`;
}
