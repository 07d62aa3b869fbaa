// Tokens as running text, shaded. Only the lines in view are in the document, so length does not matter.

const LINE = 30; // pixels from line to line
const AROUND = 6; // lines kept ready above and below those in view
const FAINTEST = 0.05; // the tone below which a token is left unshaded
const PADDING = 9; // pixels beside a token's text, both sides together, and its margin

class TokenPane {
  /** `hover` gets the token under the pointer or null, `choose` the one that was clicked or walked to. */
  constructor({ name, labels, length, hover, choose }) {
    Object.assign(this, { name, labels, length, hover, choose, chosen: 0, tones: null, describe: () => "" });
    this.lines = element("div", { className: "lines" });
    this.spacer = element("div", { className: "spacer" }, this.lines);
    this.scroll = element(
      "div",
      { className: "scroll", role: "listbox", ariaLabel: name, tabIndex: -1 },
      this.spacer,
    );
    this.ruler = element("canvas", { className: "ruler", ariaHidden: "true" });
    this.root = element("div", { className: "pane" }, this.scroll, this.ruler);
    this.scroll.addEventListener("scroll", () => this.render());
    this.scroll.addEventListener("pointerover", (event) => this.over(event));
    this.scroll.addEventListener("pointerleave", () => this.hover(null));
    this.scroll.addEventListener("click", (event) => this.click(event));
    this.scroll.addEventListener("keydown", (event) => this.key(event));
    this.ruler.addEventListener("pointerdown", (event) => this.jump(event));
    this.sizes = new ResizeObserver(() => this.layout());
    this.sizes.observe(this.scroll);
  }

  close() {
    this.sizes.disconnect();
    this.root.remove();
  }

  // ---- Which token stands on which line ----

  layout() {
    const width = this.scroll.clientWidth - 16;
    if (width <= 0 || width === this.width) return;
    this.width = width;
    const { fontSize, fontFamily } = getComputedStyle(this.scroll);
    const widthOf = measure(`${fontSize} ${fontFamily}`, this.labels);
    this.starts = [];
    this.lineOf = new Uint32Array(this.length);
    for (let index = 0, used = Infinity; index < this.length; index++) {
      const wide = widthOf(index) + PADDING;
      if (used + wide > width) {
        this.starts.push(index);
        used = 0;
      }
      used += wide;
      this.lineOf[index] = this.starts.length - 1;
    }
    this.spacer.style.height = `${this.starts.length * LINE}px`;
    this.root.style.height = `${Math.max(this.starts.length, 2) * LINE + 4}px`; // page.css says how tall at most
    this.rendered = null;
    this.reveal(this.chosen);
    this.render();
    this.drawRuler();
  }

  // ---- The lines in view ----

  render() {
    if (!this.starts) return;
    const top = Math.max(0, Math.floor(this.scroll.scrollTop / LINE) - AROUND);
    const below = Math.ceil((this.scroll.scrollTop + this.scroll.clientHeight) / LINE) + AROUND;
    const bottom = Math.min(this.starts.length, below);
    if (this.rendered?.top !== top || this.rendered?.bottom !== bottom) {
      const focused = this.lines.contains(document.activeElement);
      this.lines.replaceChildren(...range(top, bottom - 1).map((line) => this.line(line)));
      this.lines.style.transform = `translateY(${top * LINE}px)`;
      this.rendered = { top, bottom };
      this.paint();
      if (focused) (this.elementOf(this.chosen) ?? this.scroll).focus({ preventScroll: true });
    }
    this.drawRuler();
  }

  line(line) {
    const last = line + 1 < this.starts.length ? this.starts[line + 1] : this.length;
    const tokens = range(this.starts[line], last - 1).map((index) => {
      const token = element("span", {
        className: "token",
        role: "option",
        textContent: labelAt(this.labels, index),
      });
      token.dataset.index = index;
      token.ariaPosInSet = index + 1;
      token.ariaSetSize = this.length;
      return token;
    });
    return element("div", { className: "line", role: "presentation" }, ...tokens);
  }

  /** Shade each token by a tone from 0 to 1; `describe` says what it stands for. */
  shade(tones, describe) {
    Object.assign(this, { tones, describe });
    this.paint();
    this.drawRuler();
  }

  paint() {
    for (const token of this.lines.querySelectorAll(".token")) {
      const index = Number(token.dataset.index);
      const tone = this.tones?.[index] >= FAINTEST ? this.tones[index] : 0;
      token.style.backgroundColor = tone > 0 ? colourOf(tone) : "";
      token.style.color = tone > 0 ? inkOn(tone) : "";
      token.style.setProperty("--bar", `${Math.round(tone * 5)}px`);
      token.ariaLabel = `${labelAt(this.labels, index)}, ${index}${this.describe(index)}`;
      token.ariaSelected = String(index === this.chosen);
      token.tabIndex = index === this.chosen ? 0 : -1;
    }
  }

  /** The whole sequence beside the scroll bar: a line's darkest token, and the part in view. */
  drawRuler() {
    if (!this.starts || !this.ruler.clientHeight) return;
    const { context, width, height } = sheet(this.ruler);
    const rows = Math.min(Math.floor(height), this.starts.length);
    const tones = new Float32Array(rows);
    for (let index = 0; this.tones && index < this.length; index++) {
      const row = Math.floor((this.lineOf[index] * rows) / this.starts.length);
      if (this.tones[index] > tones[row]) tones[row] = this.tones[index];
    }
    const tall = height / rows;
    tones.forEach((tone, row) => {
      if (!tone) return;
      context.fillStyle = colourOf(tone);
      context.fillRect(0, row * tall, width, Math.max(tall, 1.5));
    });
    const total = this.starts.length * LINE;
    context.strokeStyle = named("quiet");
    const seen = (this.scroll.clientHeight / total) * height;
    context.strokeRect(
      0.5,
      (this.scroll.scrollTop / total) * height + 0.5,
      width - 1,
      Math.min(seen, height) - 1,
    );
    context.fillStyle = named("accent");
    context.fillRect(0, (this.lineOf[this.chosen] / this.starts.length) * height, width, 2);
  }

  // ---- Choosing ----

  elementOf(index) {
    return this.lines.querySelector(`[data-index="${index}"]`);
  }

  /** Make a token the chosen one and bring it into view. */
  select(index, { focus = false } = {}) {
    this.chosen = index;
    this.reveal(index);
    this.render();
    this.paint();
    if (focus) this.elementOf(index)?.focus({ preventScroll: true });
  }

  reveal(index) {
    if (!this.starts?.length) return;
    const top = this.lineOf[index] * LINE;
    const { scrollTop, clientHeight } = this.scroll;
    if (top < scrollTop || top + LINE > scrollTop + clientHeight) {
      this.scroll.scrollTop = top - clientHeight / 2 + LINE / 2;
    }
  }

  over(event) {
    const { index } = event.target.dataset;
    this.hover(index === undefined ? null : Number(index));
  }

  click(event) {
    const { index } = event.target.dataset;
    if (index !== undefined) this.choose(Number(index), { focus: true });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.starts) return;
    const line = this.lineOf[this.chosen];
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / LINE) - 1);
    const targets = {
      ArrowLeft: () => this.chosen - 1,
      ArrowRight: () => this.chosen + 1,
      ArrowUp: () => this.sideways(line - 1),
      ArrowDown: () => this.sideways(line + 1),
      PageUp: () => this.sideways(line - page),
      PageDown: () => this.sideways(line + page),
      Home: () => 0,
      End: () => this.length - 1,
    };
    if (!(event.key in targets)) return;
    event.preventDefault();
    const index = Math.min(Math.max(targets[event.key](), 0), this.length - 1);
    this.choose(index, { focus: true });
  }

  /** The token of another line that stands as far along it. */
  sideways(line) {
    const to = Math.min(Math.max(line, 0), this.starts.length - 1);
    const along = this.chosen - this.starts[this.lineOf[this.chosen]];
    const last = (to + 1 < this.starts.length ? this.starts[to + 1] : this.length) - 1;
    return Math.min(this.starts[to] + along, last);
  }

  jump(event) {
    const share = event.offsetY / this.ruler.clientHeight;
    this.scroll.scrollTop = share * this.starts.length * LINE - this.scroll.clientHeight / 2;
  }
}

/** How wide a token is, in pixels: numbers by their digits, words as the canvas measures them. */
function measure(font, labels) {
  const context = document.createElement("canvas").getContext("2d");
  context.font = font;
  const digit = context.measureText("0").width;
  if (!labels) return (index) => Math.max(String(index).length * digit, 8);
  const widths = new Map();
  return (index) => {
    const label = labels[index];
    if (!widths.has(label)) widths.set(label, Math.max(context.measureText(visible(label)).width, 8));
    return widths.get(label);
  };
}
