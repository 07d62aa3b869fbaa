// How the tokens are shaded: by what a query attends to, by who attends to a key, or by attention received.

const BLOCK_TONE = 0.25; // means over blocks are held back: they do not single out a token

/** Shade the pane that the mode speaks of, and say what the shades are. */
function shade(query, key) {
  const { mode, picture } = state;
  const { values, known, block } = shown(query, key);
  let most = 0;
  for (const value of values) if (value > most) most = value;
  const tone = toneFor(known, values, most);
  const tones = new Float32Array(values.length);
  for (let i = 0; i < values.length; i++) if (values[i] > 0) tones[i] = tone(values[i]);
  const side = mode === "to" ? "query" : "key";
  for (const pane of panes) {
    if (pane.side !== "both" && pane.side !== side) pane.shade(null, () => "");
    else shadePane(pane, mode === "to" && pane.side === "both" ? -picture.offset : 0, tones, values);
  }
  at("shade-note").textContent = noteOn({ query, key, known, block, most });
}

/** A number for each key (or, in the mode "to", for each query), and how it is known. */
function shown(query, key) {
  const { head, mode, picture } = state;
  if (mode === "to") return head.weightsTo(key);
  if (mode === "from" && query !== null) return head.weightsFrom(query);
  const { received } = head.series;
  if (mode === "received" && received) return { values: received, known: "received" };
  return { values: new Float32Array(picture.keys), known: null };
}

/** A pane's token i takes the tone of values[i + shift]. */
function shadePane(pane, shift, tones, values) {
  const shifted = (_, index) => tones[index + shift] ?? 0;
  const moved = shift ? Float32Array.from({ length: pane.length }, shifted) : tones;
  pane.shade(moved, (index) => (values[index + shift] > 0 ? `: ${number(values[index + shift])}` : ""));
}

/** From a value to its tone. */
function toneFor(known, values, most) {
  if (known === "received") return (state.head.receivedTone ??= receivedScale(values, most));
  if (known !== "block") return (value) => Math.sqrt(value / most);
  const tone = logScale(state.picture.scale);
  return (value) => BLOCK_TONE * tone(value);
}

/** Received attention reaches over powers of ten: from the least of the upper nine tenths to the most. */
function receivedScale(values, most) {
  const sorted = values.filter((value) => value > 0).sort();
  return logScale([Math.max(sorted[Math.floor(sorted.length / 10)] ?? most, most * 1e-5), most]);
}

function noteOn({ query, key, known, block, most }) {
  const { labels, mode, picture } = state;
  if (known === "received") return `Each key by the attention it received; the most is ${number(most)}.`;
  if (mode === "received") return "Received attention was not asked for.";
  if (mode === "from" && query === null) return "This token is a key only: it has no weights of its own.";
  if (known === null) return "The page has no weights for this.";
  const whose =
    mode === "to" ? `on key ${quoted(labels.key, key)}` : `of query ${quoted(labels.query, query)}`;
  if (known === "exact") return `Weights ${whose}; the largest is ${number(most)}.`;
  if (known === "top") {
    return `Weights ${whose}: its ${picture.topKeys.count} largest; the others are left unshaded.`;
  }
  const size = `${counted(block[1] - block[0])} ${mode === "to" ? "keys" : "queries"}`;
  const every = mode === "from" ? (picture.topKeys?.every ?? 1) : 1;
  const single = every > 1 ? ` Single weights are here for every ${ordinal(every)} query.` : "";
  return `Weights ${whose}, in the mean over blocks of ${size}.${single}`;
}
