// The page: what is chosen, and who is told when that changes.

const at = (id) => document.getElementById(id);

const CHARTED = {
  entropy: { title: "Entropy of each query", name: "query", unit: " nats" },
  received: { title: "Attention each key received", name: "key", unit: "" },
  distance: { title: "Mean distance looked", name: "query", unit: " positions" },
};

const START = 20; // about the first token chosen: the first few of a causal call see little

const state = {
  picture: null,
  head: null,
  labels: null,
  wanted: 0,
  query: null,
  key: null,
  hovered: null,
  mode: "from",
};
const panes = [];
const charts = {};
let map = null;

// ---- Choosing a layer and a head ----

async function choosePicture(index) {
  state.picture = manifest.pictures[index];
  const { picture } = state;
  const [query, key] = await Promise.all([labelsOf(picture.queryTokens), labelsOf(picture.keyTokens)]);
  state.labels = picture.oneSequence ? oneSequenceLabels(picture, query, key) : { query, key };
  const every = picture.topKeys?.every ?? 1; // begin with a query whose single weights are here
  state.query = Math.min(state.query ?? Math.ceil(START / every) * every, picture.queries - 1);
  state.key = picture.oneSequence
    ? state.query + picture.offset
    : Math.min(state.key ?? START, picture.keys - 1);
  at("title").textContent = picture.title;
  at("caption").textContent = captionOf(picture);
  makePanes();
  makeCharts();
  makeNotes();
  at("map-part").hidden = !picture.maps.length;
  drawLegend();
  await makeHeads();
  await chooseHead(Math.min(state.head?.index ?? 0, picture.heads.length - 1));
}

/** Where queries are some of the keys, their labels are too. */
function oneSequenceLabels(picture, query, key) {
  return { key, query: query ?? key?.slice(picture.offset, picture.offset + picture.queries) ?? null };
}

function captionOf(picture) {
  const size = `${counted(picture.queries)} ${picture.queries === 1 ? "query" : "queries"} × ${counted(picture.keys)} keys`;
  const heads = `${picture.heads.length} ${picture.heads.length === 1 ? "head" : "heads"}`;
  return [heads, size, ...picture.options].join(" · ");
}

async function chooseHead(index) {
  const { picture } = state;
  state.wanted = index;
  const head = await Head.open(picture, index);
  if (picture !== state.picture || index !== state.wanted) return; // another one was chosen meanwhile
  state.head = head;
  for (const button of at("heads").children) {
    const chosen = Number(button.dataset.head) === index;
    button.ariaChecked = String(chosen);
    button.tabIndex = chosen ? 0 : -1;
  }
  at("map-heading").textContent = `Map of ${headNamed(picture.heads[index])}`;
  if (head.coarse) map.show(head, state.labels);
  for (const [name, chart] of Object.entries(charts)) {
    chart.show(head.series[name], chart.name === "key" ? state.labels.key : state.labels.query);
  }
  update();
}

// ---- Choosing a token ----

/** One pane where queries and keys are one sequence, else one for each. A pane tells of its tokens' positions. */
function makePanes() {
  const { picture, labels } = state;
  for (const pane of panes.splice(0)) pane.close();
  at("tokens").replaceChildren();
  const sides = picture.oneSequence
    ? [{ name: "Tokens", side: "both", labels: labels.key, length: picture.keys }]
    : [
        { name: "Queries", side: "query", labels: labels.query, length: picture.queries },
        { name: "Keys", side: "key", labels: labels.key, length: picture.keys },
      ];
  for (const options of sides) {
    const pane = new TokenPane({
      ...options,
      hover: (index) => hover(index === null ? null : chosenFrom(options.side, index)),
      choose: (index, how) => choose(chosenFrom(options.side, index), { pane, ...how }),
    });
    pane.side = options.side;
    pane.chosen = options.side === "query" ? state.query : state.key;
    panes.push(pane);
    if (sides.length > 1) at("tokens").append(element("h3", { textContent: options.name }));
    at("tokens").append(pane.root);
  }
}

/** The query and the key that a pane's token stands for; the other side keeps what it has. */
function chosenFrom(side, index) {
  if (side === "both") return { key: index, query: index - state.picture.offset };
  return { query: state.query, key: state.key, [side]: index };
}

function choose(chosen, { focus = false, pane = null } = {}) {
  Object.assign(state, chosen, { hovered: null });
  for (const one of panes)
    one.select(one.side === "query" ? state.query : state.key, { focus: focus && one === pane });
  update();
  say();
}

/** A query was chosen outside the panes: in the map or in a chart. */
function chooseQuery(query, key = state.key) {
  choose(state.picture.oneSequence ? chosenFrom("both", query + state.picture.offset) : { query, key });
}

function chooseKey(key) {
  choose(chosenFrom(state.picture.oneSequence ? "both" : "key", key));
}

function hover(chosen) {
  if (chosen?.query === state.hovered?.query && chosen?.key === state.hovered?.key) return;
  state.hovered = chosen;
  update();
}

/** The query and key that the page speaks of; the query is null for a key that no query stands at. */
function current() {
  const { query, key } = state.hovered ?? state;
  return { query: query >= 0 && query < state.picture.queries ? query : null, key };
}

function find(text) {
  const pane = panes.find(({ side }) => side !== "key") ?? panes[0];
  const wanted = text.trim().toLowerCase();
  if (!pane || !wanted) return true;
  const numbered = /^\d+$/.test(wanted) && Number(wanted) < pane.length ? Number(wanted) : null;
  const match = (_, step) => (pane.chosen + 1 + step) % pane.length;
  const found =
    numbered ??
    range(0, pane.length - 1)
      .map(match)
      .find((index) => pane.labels?.[index].toLowerCase().includes(wanted));
  if (found !== undefined) pane.choose(found, {});
  return found !== undefined;
}

// ---- Showing what is chosen ----

function update() {
  const { query, key } = current();
  map.mark(query);
  for (const chart of Object.values(charts)) chart.mark(chart.name === "key" ? key : query);
  shade(query, key);
  showDetails(query, key);
}

// ---- Charts ----

function makeCharts() {
  at("charts").replaceChildren();
  for (const name of Object.keys(charts)) delete charts[name];
  for (const [name, options] of Object.entries(CHARTED)) {
    if (!state.picture.series[name]) continue;
    const onKey = options.name === "key";
    charts[name] = new Chart({
      ...options,
      choose: (index) => (onKey ? chooseKey(index) : chooseQuery(index)),
    });
    at("charts").append(charts[name].root);
  }
}

// ---- Light and dark ----

function applyTheme() {
  readTheme();
  at("theme-name").textContent = theme.dark ? "Light" : "Dark";
  if (!state.head) return;
  drawLegend();
  paintHeads();
  map.repaint();
  for (const pane of panes) {
    pane.paint();
    pane.drawRuler();
  }
  for (const chart of Object.values(charts)) chart.draw();
}

function toggleTheme() {
  document.documentElement.dataset.theme = theme.dark ? "light" : "dark";
  applyTheme();
}

// ---- Beginning ----

async function begin() {
  applyTheme();
  map = new MapView(at("map"), { say: (text) => (at("readout").textContent = text), choose: chooseQuery });
  at("zoom-in").addEventListener("click", () => map.zoomBy(1.6));
  at("zoom-out").addEventListener("click", () => map.zoomBy(1 / 1.6));
  at("zoom-all").addEventListener("click", () => map.showAll());
  at("heads").addEventListener("keydown", walkHeads);
  at("theme").addEventListener("click", toggleTheme);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", applyTheme);
  at("modes").addEventListener("change", (event) => {
    state.mode = event.target.value;
    update();
  });
  at("find").addEventListener("change", (event) => {
    event.target.ariaInvalid = String(!find(event.target.value));
  });
  at("layer-choice").hidden = manifest.pictures.length === 1;
  at("layer").append(
    ...manifest.pictures.map(({ title }, value) => element("option", { value, textContent: title })),
  );
  at("layer").addEventListener("change", (event) => choosePicture(Number(event.target.value)));
  await choosePicture(0);
  document.documentElement.dataset.ready = "true";
}

/** Say that something went wrong; the console has the details. */
function trouble(message) {
  at("trouble").textContent =
    `This page could not be drawn: ${message}. It needs a browser from 2023 or later.`;
  at("trouble").hidden = false;
}

addEventListener("error", (event) => trouble(event.message));
addEventListener("unhandledrejection", (event) => trouble(event.reason.message));
begin();
