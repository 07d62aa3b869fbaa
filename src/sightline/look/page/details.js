// What is said of the chosen token: the tokens' shades, its numbers, its largest weights.

// Each number's name, and what is said behind it.
const FACTS = {
  entropy: ["Entropy", (value) => `nats ≈ ${number(Math.exp(value), 2)} keys`],
  received: ["Received", () => "from all queries"],
  distance: ["Distance", () => "positions, mean"],
  lse: ["lse", () => "log-sum-exp"],
  max_score: ["Largest score", () => ""],
};

/** Shade the pane that the mode speaks of, and say what the shades are. */
function shade(query, key) {
  const { head, mode, picture } = state;
  const side = mode === "to" ? "query" : "key";
  const { values, known, block } =
    mode === "received"
      ? { values: head.series.received ?? new Float32Array(picture.keys), known: head.series.received ? "received" : null }
      : mode === "to"
        ? head.weightsTo(key)
        : query === null
          ? { values: new Float32Array(picture.keys), known: null }
          : head.weightsFrom(query);
  const most = values.reduce((a, b) => (b > a ? b : a), 0);
  const tone = toneFor(known, values, most);
  const tones = Float32Array.from(values, (value) => (value > 0 ? tone(value) : 0));
  for (const pane of panes) {
    if (pane.side !== "both" && pane.side !== side) pane.shade(null, () => "");
    else shadePane(pane, mode === "to" && pane.side === "both" ? -picture.offset : 0, tones, values);
  }
  at("shade-note").textContent = shadeNote({ query, key, known, block, most });
}

/** A pane's token i takes the tone of values[i + shift]. */
function shadePane(pane, shift, tones, values) {
  const moved = shift ? Float32Array.from({ length: pane.length }, (_, index) => tones[index + shift] ?? 0) : tones;
  pane.shade(moved, (index) => (values[index + shift] > 0 ? `: ${number(values[index + shift])}` : ""));
}

/** From a value to its tone. Means over blocks are held back: they do not single out a token. */
function toneFor(known, values, most) {
  if (known === "received") return receivedScale(values, most);
  if (known !== "block") return (value) => Math.sqrt(value / most);
  const tone = logScale(state.picture.scale);
  return (value) => 0.4 * tone(value);
}

/** Received attention reaches over powers of ten: from the least of the upper nine tenths to the most. */
function receivedScale(values, most) {
  const sorted = values.filter((value) => value > 0).sort();
  return logScale([Math.max(sorted[Math.floor(sorted.length / 10)] ?? most, most * 1e-5), most]);
}

function shadeNote({ query, key, known, block, most }) {
  const { labels, mode, picture } = state;
  if (mode === "received") return known ? `Each key by the attention it received; the most is ${number(most)}.` : "Received attention was not asked for.";
  const who = mode === "to" ? quoted(labels.key, key) : query === null ? "" : quoted(labels.query, query);
  const verb = mode === "to" ? `Weights on key ${who}` : `Weights of query ${who}`;
  if (known === "exact") return `${verb}; the largest is ${number(most)}.`;
  if (known === "top") return `${verb}: its ${picture.topKeys.count} largest; the others are left unshaded.`;
  const every = mode === "from" && picture.topKeys?.every > 1 ? ` Single weights are here for every ${ordinal(picture.topKeys.every)} query.` : "";
  if (known === "block") return `${verb}, in the mean over blocks of ${counted(block[1] - block[0])} ${mode === "to" ? "keys" : "queries"}.${every}`;
  return query === null ? "This token is a key only: it has no weights of its own." : "The page has no weights for this.";
}

function ordinal(count) {
  const ending = { 1: "st", 2: "nd", 3: "rd" }[count % 10];
  return `${count}${count % 100 > 10 && count % 100 < 14 ? "th" : (ending ?? "th")}`;
}

function showDetails(query, key) {
  const { head, labels, picture } = state;
  const oneKey = picture.oneSequence ? key : null;
  const title = query === null ? `Key ${quoted(labels.key, key)}` : `Query ${quoted(labels.query, query)}`;
  at("details-title").textContent = picture.oneSequence ? title : `${title}, key ${quoted(labels.key, key)}`;
  at("facts").replaceChildren(
    ...Object.entries(FACTS).flatMap(([name, [title, gloss]]) => {
      const values = head.series[name];
      const index = name === "received" ? (oneKey ?? key) : query;
      if (!values || index === null) return [];
      const small = element("small", { textContent: gloss(values[index]) });
      const value = element("dd", {}, element("b", { textContent: number(values[index], 4) }), " ", small);
      return [element("div", {}, element("dt", { textContent: title }), value)];
    }),
  );
  const top = query === null ? null : head.topKeys(query);
  at("top").hidden = !top;
  at("nearest").hidden = top !== null || query === null || !head.top;
  if (!at("nearest").hidden) offerNearest(query);
  if (!top) return;
  at("top-caption").textContent = `Largest weights of query ${quoted(labels.query, query)}`;
  at("top-rows").replaceChildren(...top.map((entry) => topRow(entry, top[0].weight)));
}

/** A long input's page has single weights of some queries only: lead to one. */
function offerNearest(query) {
  const { every } = state.head.top;
  const last = Math.floor((state.picture.queries - 1) / every);
  const nearest = Math.min(Math.round(query / every), last) * every;
  at("nearest").textContent = `Show query ${quoted(state.labels.query, nearest)}, the nearest with single weights`;
  at("nearest").onclick = () => chooseQuery(nearest);
}

function topRow({ index, weight }, most) {
  const jump = element("button", { type: "button", className: "jump", textContent: labelAt(state.labels.key, index) });
  jump.title = `Go to key ${index}`;
  jump.addEventListener("click", () => chooseKey(index));
  const bar = element("span", { className: "share" });
  bar.style.width = `${(100 * weight) / most}%`;
  return element(
    "tr",
    {},
    element("td", { textContent: index }),
    element("td", {}, jump),
    element("td", { textContent: number(weight, 4) }),
    element("td", { className: "wide" }, bar),
  );
}

/** For screen readers: the chosen token in one sentence. */
function say() {
  const { query, key } = current();
  const { head, labels } = state;
  const [first] = (query !== null && head.topKeys(query)) || [];
  const most = first ? `: most to ${quoted(labels.key, first.index)}, ${number(first.weight)}` : "";
  at("spoken").textContent = query === null ? `Key ${quoted(labels.key, key)}` : `Query ${quoted(labels.query, query)}${most}`;
}
