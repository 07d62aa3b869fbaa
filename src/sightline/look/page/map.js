// The map of the weights: zoom, move, and say what lies under the pointer or the cursor.

const MARGIN = { left: 78, top: 66, right: 38, bottom: 10 };
const LABELLED = 12; // pixels of a token from which it is named at the axes
const NUMBERED = 44; // … from which its weight is written into the cell
const WIDEST = 88; // … at the deepest zoom
const POINT = "Point at the map, or walk over it with the arrow keys.";
const FINE_FROM = 3; // pixels of a coarse cell from which the finer map is drawn

class MapView {
  /** `say` gets the readout, `choose` the query that was chosen. */
  constructor(canvas, { say, choose }) {
    Object.assign(this, { canvas, say, choose, head: null, cursor: null, marked: null, bitmaps: new Map() });
    this.view = { x: 0, y: 0, zoom: 1 };
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerup", (event) => this.release(event));
    canvas.addEventListener("pointercancel", () => (this.drag = null));
    canvas.addEventListener("pointerleave", () => this.drag || this.moveTo(null));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.draw());
    canvas.addEventListener("blur", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  /** Show another head; the view stays where it is if the lengths are the same. */
  show(head, labels) {
    const { queries, keys } = head.picture;
    if (queries !== this.queries || keys !== this.keys)
      Object.assign(this, { view: { x: 0, y: 0, zoom: 1 }, cursor: null });
    Object.assign(this, { head, labels, queries, keys, tone: logScale(head.picture.scale ?? [1e-3, 1]) });
    this.canvas.style.aspectRatio = `1 / ${Math.min(Math.max(queries / Math.max(keys, 1), 0.3), 1)}`;
    this.say(this.cursor ? this.reading(this.cursor) : POINT);
    this.repaint();
  }

  /** Draw with new colours or numbers. */
  repaint() {
    this.bitmaps.clear();
    this.draw();
  }

  /** Mark a query's row. */
  mark(query) {
    this.marked = query;
    this.draw();
  }

  // ---- Geometry: tokens ↔ pixels ----

  get plot() {
    const { clientWidth, clientHeight } = this.canvas;
    const width = Math.max(clientWidth - MARGIN.left - MARGIN.right, 1);
    const height = Math.max(clientHeight - MARGIN.top - MARGIN.bottom, 1);
    return { left: MARGIN.left, top: MARGIN.top, width, height };
  }

  /** Pixels of one key and of one query. */
  get scale() {
    const { width, height } = this.plot;
    return { x: (width * this.view.zoom) / this.keys, y: (height * this.view.zoom) / this.queries };
  }

  get deepest() {
    const { width, height } = this.plot;
    return Math.max(1, (WIDEST * this.keys) / width, (WIDEST * this.queries) / height);
  }

  /** The finer map where it is worth it, and is there. */
  get grid() {
    const { head } = this;
    if (!head.hasFine || (this.scale.x * this.keys) / head.coarse.columns < FINE_FROM) return head.coarse;
    if (head.fine) return head.fine;
    head.openFine().then(() => head === this.head && this.draw());
    return head.coarse;
  }

  tokenAt(x, y) {
    const { left, top } = this.plot;
    const query = Math.floor(this.view.y + (y - top) / this.scale.y);
    const key = Math.floor(this.view.x + (x - left) / this.scale.x);
    const inside = x >= left && y >= top && query >= 0 && query < this.queries && key >= 0 && key < this.keys;
    return inside ? { query, key } : null;
  }

  /** Zoom by a factor, the token at (x, y) staying where it is; the middle by default. */
  zoomBy(factor, x, y) {
    const { left, top, width, height } = this.plot;
    const [dx, dy] = [(x ?? left + width / 2) - left, (y ?? top + height / 2) - top];
    const [key, query] = [this.view.x + dx / this.scale.x, this.view.y + dy / this.scale.y];
    this.view.zoom = Math.min(Math.max(this.view.zoom * factor, 1), this.deepest);
    this.view.x = key - dx / this.scale.x;
    this.view.y = query - dy / this.scale.y;
    this.settle();
  }

  showAll() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.settle();
  }

  /** Keep the view inside the map, then draw. */
  settle() {
    const { view } = this;
    view.x = Math.min(Math.max(view.x, 0), this.keys - this.keys / view.zoom);
    view.y = Math.min(Math.max(view.y, 0), this.queries - this.queries / view.zoom);
    this.canvas.style.touchAction = view.zoom > 1 ? "none" : "pan-y";
    this.draw();
  }

  // ---- Pointer and keys ----

  press(event) {
    this.drag = { x: event.offsetX, y: event.offsetY, from: { ...this.view }, moved: false };
    this.canvas.setPointerCapture(event.pointerId);
  }

  point(event) {
    const { drag } = this;
    if (!drag) return this.moveTo(this.tokenAt(event.offsetX, event.offsetY));
    const [dx, dy] = [event.offsetX - drag.x, event.offsetY - drag.y];
    drag.moved ||= Math.hypot(dx, dy) > 4;
    if (!drag.moved) return;
    this.view.x = drag.from.x - dx / this.scale.x;
    this.view.y = drag.from.y - dy / this.scale.y;
    this.settle();
  }

  release(event) {
    const token = this.drag && !this.drag.moved && this.tokenAt(event.offsetX, event.offsetY);
    this.drag = null;
    if (token) this.choose(token.query, token.key);
  }

  wheel(event) {
    const meant = event.ctrlKey || event.metaKey || document.activeElement === this.canvas;
    if (!meant) return; // the page scrolls
    event.preventDefault();
    this.zoomBy(2 ** (-event.deltaY / 240), event.offsetX, event.offsetY);
  }

  key(event) {
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in steps) this.step(...steps[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoomAtCursor(1.6);
    else if (event.key === "-" || event.key === "_") this.zoomAtCursor(1 / 1.6);
    else if (event.key === "0") this.showAll();
    else if (event.key === "Enter" && this.cursor) this.choose(this.cursor.query, this.cursor.key);
    else return;
    event.preventDefault();
  }

  zoomAtCursor(factor) {
    if (!this.cursor) return this.zoomBy(factor);
    const { left, top } = this.plot;
    const x = left + (this.cursor.key + 0.5 - this.view.x) * this.scale.x;
    const y = top + (this.cursor.query + 0.5 - this.view.y) * this.scale.y;
    this.zoomBy(factor, x, y);
  }

  /** Walk to a neighbouring cell; the view follows. */
  step(down, right) {
    const { grid, view } = this;
    const at = this.cursor ?? { query: Math.floor(view.y), key: Math.floor(view.x) };
    const row = Math.min(Math.max(grid.rowOf(at.query) + (this.cursor ? down : 0), 0), grid.rows - 1);
    const column = Math.min(Math.max(grid.columnOf(at.key) + (this.cursor ? right : 0), 0), grid.columns - 1);
    const [queries, keys] = [grid.queriesOf(row), grid.keysOf(column)];
    const [high, wide] = [this.queries / view.zoom, this.keys / view.zoom];
    view.y = Math.min(Math.max(view.y, queries[1] - high), queries[0]);
    view.x = Math.min(Math.max(view.x, keys[1] - wide), keys[0]);
    this.settle();
    this.moveTo({ query: queries[0], key: keys[0] });
  }

  moveTo(token) {
    if (token?.query === this.cursor?.query && token?.key === this.cursor?.key) return;
    this.cursor = token;
    this.say(token ? this.reading(token) : POINT);
    this.draw();
  }

  /** What the cell around a token holds, in words. */
  reading({ query, key }) {
    const { grid, labels, head } = this;
    const [row, column] = [grid.rowOf(query), grid.columnOf(key)];
    const [queries, keys] = [grid.queriesOf(row), grid.keysOf(column)];
    const where = `${spanned("query", labels.query, queries)} → ${spanned("key", labels.key, keys)}`;
    if (queries[1] - queries[0] === 1 && keys[1] - keys[0] === 1)
      return `${where}: weight ${number(grid.sum(row, column))}`;
    const sharp = this.detailed && head.topKeys(query)?.find(({ index }) => index === key);
    const single = sharp
      ? `; there, query ${quoted(labels.query, query)} → key ${quoted(labels.key, key)}: weight ${number(sharp.weight)}`
      : "";
    return `${where}: weight sum ${number(grid.sum(row, column))}, mean ${number(grid.mean(row, column))}${single}`;
  }

  // ---- Drawing ----

  /** Whether single top keys are drawn over cells that hold many tokens. */
  get detailed() {
    return !this.grid.exact && this.head.top !== null && Math.min(this.scale.x, this.scale.y) >= 2;
  }

  draw() {
    if (!this.head?.coarse || !this.canvas.clientWidth) return;
    const { context } = sheet(this.canvas);
    const { grid, view, plot } = this;
    Object.assign(this.canvas.dataset, {
      level: grid === this.head.fine ? "fine" : "coarse",
      zoom: view.zoom.toFixed(2),
      plot: `${plot.left} ${plot.top} ${plot.width} ${plot.height}`,
    });
    context.fillStyle = named("paper");
    context.fillRect(plot.left, plot.top, plot.width, plot.height);
    context.save();
    context.beginPath();
    context.rect(plot.left, plot.top, plot.width, plot.height);
    context.clip();
    const [across, down] = [grid.columns / this.keys, grid.rows / this.queries];
    context.imageSmoothingEnabled = this.scale.x < across;
    context.drawImage(
      this.bitmap(grid),
      ...[view.x * across, view.y * down, grid.columns / view.zoom, grid.rows / view.zoom],
      ...[plot.left, plot.top, plot.width, plot.height],
    );
    if (this.detailed) drawTopKeys(this, context);
    if (grid.exact && Math.min(this.scale.x, this.scale.y) >= NUMBERED) drawWeights(this, context);
    drawCursor(this, context);
    context.restore();
    context.strokeStyle = named("line");
    context.strokeRect(plot.left - 0.5, plot.top - 0.5, plot.width + 1, plot.height + 1);
    drawMark(this, context);
    drawAxes(this, context);
  }

  /** A grid as a picture of one pixel per cell; cells of weight 0 show the paper. */
  bitmap(grid) {
    if (!this.bitmaps.has(grid)) this.bitmaps.set(grid, painted(grid, this.tone));
    return this.bitmaps.get(grid);
  }

  /** The tokens in view, as [first query, last query, first key, last key], ends included. */
  get inView() {
    const { view } = this;
    const last = (from, size, all) => Math.min(Math.ceil(from + size), all) - 1;
    return [
      ...[Math.floor(view.y), last(view.y, this.queries / view.zoom, this.queries)],
      ...[Math.floor(view.x), last(view.x, this.keys / view.zoom, this.keys)],
    ];
  }

  /** Where a token's cell lies, in pixels. */
  box(query, key) {
    const { plot, scale, view } = this;
    return [plot.left + (key - view.x) * scale.x, plot.top + (query - view.y) * scale.y, scale.x, scale.y];
  }
}
