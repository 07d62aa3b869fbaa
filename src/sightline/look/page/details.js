// What is said of the chosen token: its numbers and its largest weights.

// Each number's name, and what is said behind it.
const FACTS = {
  entropy: ["Entropy", (value) => `nats ≈ ${number(Math.exp(value), 2)} keys`],
  received: ["Received", () => "from all queries"],
  distance: ["Distance", () => "positions, mean"],
  lse: ["lse", () => "log-sum-exp"],
  max_score: ["Largest score", () => ""],
};

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
  at("nearest").textContent =
    `Show query ${quoted(state.labels.query, nearest)}, the nearest with single weights`;
  at("nearest").onclick = () => chooseQuery(nearest);
}

function topRow({ index, weight }, most) {
  const jump = element("button", {
    type: "button",
    className: "jump",
    textContent: labelAt(state.labels.key, index),
  });
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
  at("spoken").textContent =
    query === null ? `Key ${quoted(labels.key, key)}` : `Query ${quoted(labels.query, query)}${most}`;
}
