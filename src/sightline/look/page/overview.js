// The heads side by side, small: one is chosen, by click or with the arrow keys.

async function makeHeads() {
  const { picture } = state;
  at("heads-part").hidden = picture.heads.length === 1 && manifest.pictures.length === 1;
  at("heads-hint").textContent = picture.series.entropy
    ? "with their mean entropy in nats: less is sharper"
    : "";
  const buttons = await Promise.all(picture.heads.map((name, index) => headButton(picture, name, index)));
  at("heads").replaceChildren(...buttons);
  await paintHeads();
}

async function headButton(picture, name, index) {
  const button = element("button", {
    type: "button",
    className: "head",
    role: "radio",
    ariaChecked: "false",
    tabIndex: -1,
  });
  button.dataset.head = index;
  if (picture.maps.length) button.append(element("canvas", { ariaHidden: "true" }));
  button.append(element("span", { className: "name", textContent: headNamed(name), title: name }));
  if (picture.series.entropy) {
    const entropy = (await numbers(picture.series.entropy, index)).filter(Number.isFinite);
    const mean = entropy.reduce((sum, value) => sum + value, 0) / (entropy.length || 1);
    button.append(element("span", { className: "quiet", textContent: mean.toFixed(2) }));
  }
  button.addEventListener("click", () => chooseHead(index));
  return button;
}

/** Small multiples: every head's coarse map, on the one scale. */
async function paintHeads() {
  const { picture } = state;
  const [coarse] = picture.maps;
  if (!coarse) return;
  for (const button of [...at("heads").children]) {
    const grid = new Grid(picture, coarse, await numbers(coarse, Number(button.dataset.head)));
    const canvas = button.querySelector("canvas");
    const { context, width, height } = sheet(canvas);
    context.imageSmoothingEnabled = grid.columns > width;
    context.imageSmoothingQuality = "high";
    context.drawImage(painted(grid, logScale(picture.scale ?? [1e-3, 1])), 0, 0, width, height);
  }
}

function walkHeads(event) {
  const count = state.picture.heads.length;
  const steps = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 };
  if (!(event.key in steps)) return;
  event.preventDefault();
  const next = (state.head.index + steps[event.key] + count) % count;
  at("heads").children[next].focus();
  chooseHead(next);
}
