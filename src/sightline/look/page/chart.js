// A number along the sequence, as a line.

const FRAME = { left: 52, top: 10, right: 12, bottom: 22 };

class Chart {
  /** `name` of a "query" or a "key", `unit` after its numbers, `choose` gets the token that was clicked. */
  constructor({ title, name, unit, choose }) {
    Object.assign(this, { title, name, unit, values: null, chosen: null, pointed: null });
    this.canvas = element("canvas", { role: "img" });
    this.reading = element("span", { className: "quiet" });
    const caption = element("figcaption", {}, element("h2", { textContent: title }), this.reading);
    this.root = element("figure", {}, caption, this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.point(this.indexAt(event.offsetX)));
    this.canvas.addEventListener("pointerleave", () => this.point(null));
    this.canvas.addEventListener("click", (event) => choose(this.indexAt(event.offsetX)));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
  }

  show(values, labels) {
    const finite = values.filter(Number.isFinite).sort();
    const [low, middle, high] = [finite[0] ?? 0, finite[finite.length >> 1] ?? 0, finite.at(-1) ?? 1];
    this.log = low >= 0 && middle > 0 && high > 40 * middle;
    const floor = this.log ? finite.find((value) => value > 0) : Math.min(low, 0);
    Object.assign(this, {
      values,
      labels,
      low: Math.max(floor, this.log ? high * 1e-6 : floor),
      high: high || 1,
    });
    this.canvas.ariaLabel = `${this.title}: ${counted(values.length)} numbers from ${number(low)} to ${number(high)}, median ${number(middle)}`;
    this.point(null);
  }

  mark(index) {
    this.chosen = index;
    this.point(this.pointed);
  }

  point(index) {
    this.pointed = index;
    const at = index ?? this.chosen;
    const known = at !== null && this.values && at < this.values.length;
    this.reading.textContent = known
      ? `${this.name} ${quoted(this.labels, at)}: ${number(this.values[at])}${this.unit}`
      : "";
    this.draw();
  }

  get span() {
    return Math.max(this.canvas.clientWidth - FRAME.left - FRAME.right, 1);
  }

  indexAt(x) {
    const index = Math.floor(((x - FRAME.left) / this.span) * this.values.length);
    return Math.min(Math.max(index, 0), this.values.length - 1);
  }

  xOf(index) {
    return FRAME.left + ((index + 0.5) / this.values.length) * this.span;
  }

  yOf(value) {
    const height = this.canvas.clientHeight - FRAME.top - FRAME.bottom;
    const { low, high } = this;
    const share = this.log
      ? Math.log(Math.max(value, low) / low) / Math.log(high / low)
      : (value - low) / (high - low);
    return FRAME.top + height * (1 - Math.min(Math.max(share, 0), 1));
  }

  draw() {
    if (!this.values?.length || !this.canvas.clientWidth) return;
    const { context, width, height } = sheet(this.canvas);
    this.drawAxes(context, width, height);
    this.drawLine(context);
    if (this.chosen !== null) this.drawMark(context, this.chosen, named("accent"), height);
    if (this.pointed !== null) this.drawMark(context, this.pointed, named("ink"), height);
  }

  drawAxes(context, width, height) {
    Object.assign(context, { textAlign: "right", textBaseline: "middle", strokeStyle: named("line") });
    for (const value of this.log ? powers(this.low, this.high) : steps(this.low, this.high, 4)) {
      const y = Math.round(this.yOf(value)) + 0.5;
      context.beginPath();
      context.moveTo(FRAME.left, y);
      context.lineTo(width - FRAME.right, y);
      context.stroke();
      context.fillStyle = named("quiet");
      context.fillText(number(value, 2), FRAME.left - 7, y);
    }
    Object.assign(context, { textAlign: "center", textBaseline: "bottom" });
    for (const index of ticks(0, this.values.length - 1, width / 110)) {
      context.fillText(counted(index), this.xOf(index), height - 2);
    }
  }

  /** Each number if they fit; else the mean of each pixel column, and a band from its smallest to its largest. */
  drawLine(context) {
    const pixels = Math.floor(this.span);
    const fits = this.values.length <= 2 * pixels;
    if (this.summed?.values !== this.values || this.summed.pixels !== pixels) {
      const columns = fits
        ? Array.from(this.values, (mean, first) => ({ first, mean }))
        : summaries(this.values, pixels);
      this.summed = { values: this.values, pixels, columns }; // until the numbers or the width change
    }
    const { columns } = this.summed;
    context.fillStyle = context.strokeStyle = named("line-ink");
    if (!fits) this.drawBand(context, columns);
    Object.assign(context, { lineWidth: 1.5, lineJoin: "round" });
    context.beginPath();
    let open = false;
    for (const { first, mean } of columns) {
      if (Number.isFinite(mean)) context[open ? "lineTo" : "moveTo"](this.xOf(first), this.yOf(mean));
      open = Number.isFinite(mean);
    }
    context.stroke();
    context.lineWidth = 1;
  }

  drawBand(context, columns) {
    context.globalAlpha = 0.3;
    for (const { first, least, most } of columns) {
      const [top, bottom] = [this.yOf(most), this.yOf(least)];
      if (least <= most) context.fillRect(this.xOf(first), top, 1, Math.max(bottom - top, 1));
    }
    context.globalAlpha = 1;
  }

  drawMark(context, index, colour, height) {
    if (index >= this.values.length) return;
    const x = this.xOf(index);
    context.strokeStyle = context.fillStyle = colour;
    context.beginPath();
    context.moveTo(x, FRAME.top);
    context.lineTo(x, height - FRAME.bottom);
    context.stroke();
    if (!Number.isFinite(this.values[index])) return;
    context.beginPath();
    context.arc(x, this.yOf(this.values[index]), 3.5, 0, 2 * Math.PI);
    context.fill();
  }
}

/** The finite numbers of each of so many stretches: where it begins, the smallest, the largest and the mean. */
function summaries(values, stretches) {
  return range(0, stretches - 1).map((stretch) => {
    const first = Math.floor((stretch * values.length) / stretches);
    const last = Math.floor(((stretch + 1) * values.length) / stretches);
    const finite = values.subarray(first, last).filter(Number.isFinite);
    const sum = finite.reduce((total, value) => total + value, 0);
    return { first, least: Math.min(...finite), most: Math.max(...finite), mean: sum / finite.length };
  });
}

/** Round numbers from low to high. */
function steps(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high * (1 + 1e-9); n++) found.push(n * step);
  return found;
}

/** The powers of ten from low to high, every second or third where there are many. */
function powers(low, high) {
  const [first, last] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
  const every = Math.ceil((last - first + 1) / 5) || 1;
  return range(first, Math.max(first, last))
    .filter((power) => (last - power) % every === 0)
    .map((power) => 10 ** power);
}
