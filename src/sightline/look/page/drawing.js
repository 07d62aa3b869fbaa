// What the map is drawn with: cells, single weights, the cursor, the axes.

/** A grid's cells as pixels. */
function painted(grid, tone) {
  const canvas = element("canvas", { width: grid.columns, height: grid.rows });
  const context = canvas.getContext("2d");
  const image = context.createImageData(grid.columns, grid.rows);
  const widths = Array.from({ length: grid.columns }, (_, c) => grid.keysOf(c)[1] - grid.keysOf(c)[0]);
  for (let row = 0, at = 0; row < grid.rows; row++) {
    const [first, last] = grid.queriesOf(row);
    for (let column = 0; column < grid.columns; column++, at++) {
      const sum = grid.values[at];
      if (!(sum > 0)) continue;
      const shade = 3 * shadeOf(tone(sum / ((last - first) * widths[column])));
      for (let c = 0; c < 3; c++) image.data[4 * at + c] = theme.shades[shade + c];
      image.data[4 * at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Single top keys over cells that hold many: the darker square's share of its cell is the weight. */
function drawTopKeys(map, context) {
  const [first, last, left, right] = map.inView;
  for (let query = first; query <= last; query++) {
    for (const { index, weight } of map.head.topKeys(query) ?? []) {
      if (index < left || index > right) continue;
      const [x, y, width, height] = map.box(query, index);
      const side = Math.sqrt(weight);
      context.fillStyle = named("paper");
      context.fillRect(x, y, width, height);
      context.fillStyle = named("accent");
      const [wide, high] = [Math.max(width * side, 1), Math.max(height * side, 1)];
      context.fillRect(x + (width - wide) / 2, y + (height - high) / 2, wide, high);
    }
  }
}

/** Each weight in its cell. */
function drawWeights(map, context) {
  const [first, last, left, right] = map.inView;
  Object.assign(context, { textAlign: "center", textBaseline: "middle" });
  for (let query = first; query <= last; query++) {
    for (let key = left; key <= right; key++) {
      const weight = map.grid.sum(query, key);
      if (weight === 0) continue;
      const [x, y, width, height] = map.box(query, key);
      context.fillStyle = inkOn(map.tone(weight));
      context.fillText(
        weight < 5e-4 ? "<.001" : weight.toFixed(3).replace(/^0/, ""),
        x + width / 2,
        y + height / 2,
      );
    }
  }
}

function drawCursor(map, context) {
  const { plot, grid, cursor } = map;
  if (!cursor) return;
  const [queries, keys] = [grid.queriesOf(grid.rowOf(cursor.query)), grid.keysOf(grid.columnOf(cursor.key))];
  const [x, y] = map.box(queries[0], keys[0]);
  const [width, height] = [(keys[1] - keys[0]) * map.scale.x, (queries[1] - queries[0]) * map.scale.y];
  context.fillStyle = named("veil");
  context.fillRect(plot.left, y, plot.width, height);
  context.fillRect(x, plot.top, width, plot.height);
  context.strokeStyle = named("ink");
  context.strokeRect(x - 0.5, y - 0.5, width + 1, height + 1);
}

/** The chosen query's row. */
function drawMark(map, context) {
  const { plot, marked } = map;
  if (marked === null) return;
  const [, y, , height] = map.box(marked, 0);
  const [top, bottom] = [Math.max(y, plot.top), Math.min(y + Math.max(height, 1), plot.top + plot.height)];
  if (top > bottom) return;
  context.strokeStyle = named("accent");
  context.lineWidth = 1.5;
  context.strokeRect(plot.left - 2, top - 0.75, plot.width + 4, bottom - top + 1.5);
  context.lineWidth = 1;
}

function drawAxes(map, context) {
  const { plot, scale, labels, view } = map;
  const [top, bottom, left, right] = map.inView;
  context.fillStyle = named("quiet");
  Object.assign(context, { textAlign: "right", textBaseline: "middle" });
  for (const query of scale.y >= LABELLED ? range(top, bottom) : ticks(top, bottom, plot.height / 70)) {
    const y = plot.top + (query + 0.5 - view.y) * scale.y;
    if (y < plot.top || y > plot.top + plot.height) continue;
    context.fillText(
      short(scale.y >= LABELLED ? labelAt(labels.query, query) : counted(query)),
      plot.left - 7,
      y,
    );
  }
  context.textAlign = "left";
  for (const key of scale.x >= LABELLED ? range(left, right) : ticks(left, right, plot.width / 90)) {
    const x = plot.left + (key + 0.5 - view.x) * scale.x;
    if (x < plot.left || x > plot.left + plot.width) continue;
    context.save();
    context.translate(x, plot.top - 7);
    context.rotate(-Math.PI / 4);
    context.fillText(short(scale.x >= LABELLED ? labelAt(labels.key, key) : counted(key)), 0, 0);
    context.restore();
  }
  context.fillStyle = named("faint");
  context.textAlign = "left";
  context.fillText("keys →", 4, 12);
  context.fillText("queries ↓", 4, 28);
}

/** A label that fits beside an axis. */
function short(label) {
  const characters = Array.from(label);
  return characters.length > 10 ? `${characters.slice(0, 9).join("")}…` : label;
}

function range(first, last) {
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** Round numbers between first and last, about `count` of them. */
function ticks(first, last, count) {
  const rough = (last - first) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((factor) => factor * power >= rough) * power, 1);
  const found = [];
  for (let tick = Math.ceil(first / step) * step; tick <= last; tick += step) found.push(tick);
  return found;
}
