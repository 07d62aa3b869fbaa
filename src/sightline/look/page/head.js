// One head of one picture: its maps, and what is known of single weights.

const NONE = 2 ** 32 - 1;

/** Whether a map's cells are single weights. */
function hasWeights(picture, map) {
  return map.rows === picture.queries && map.columns === picture.keys;
}

/** One level of the map. Query i lies in row ⌊i·R / Lq⌋, key j in column ⌊j·C / Lk⌋. */
class Grid {
  constructor(picture, map, values) {
    Object.assign(this, { rows: map.rows, columns: map.columns, values });
    Object.assign(this, { queries: picture.queries, keys: picture.keys });
    this.exact = hasWeights(picture, map);
  }

  rowOf(query) {
    return Math.floor((query * this.rows) / this.queries);
  }

  columnOf(key) {
    return Math.floor((key * this.columns) / this.keys);
  }

  /** The first query of a row, and the first one after it. */
  queriesOf(row) {
    return [Math.ceil((row * this.queries) / this.rows), Math.ceil(((row + 1) * this.queries) / this.rows)];
  }

  keysOf(column) {
    return [
      Math.ceil((column * this.keys) / this.columns),
      Math.ceil(((column + 1) * this.keys) / this.columns),
    ];
  }

  /** The sum of the weights in a cell. */
  sum(row, column) {
    return this.values[row * this.columns + column];
  }

  /** Their mean: what colours show, for it does not depend on how large cells are. */
  mean(row, column) {
    const [q, k] = [this.queriesOf(row), this.keysOf(column)];
    return this.sum(row, column) / ((q[1] - q[0]) * (k[1] - k[0]));
  }
}

class Head {
  /** Open what is shown at once; the finer map waits until someone zooms in, unless it has the weights themselves. */
  static async open(picture, index) {
    const head = Object.assign(new Head(), {
      picture,
      index,
      series: {},
      coarse: null,
      fine: null,
      top: null,
    });
    const opening = Object.entries(picture.series).map(async ([name, array]) => {
      head.series[name] = await numbers(array, index);
    });
    const [coarse, finer] = picture.maps;
    if (coarse)
      opening.push(
        numbers(coarse, index).then((values) => (head.coarse = new Grid(picture, coarse, values))),
      );
    if (finer && hasWeights(picture, finer)) opening.push(head.openFine());
    if (picture.topKeys) opening.push(head.openTop());
    await Promise.all(opening);
    return head;
  }

  get hasFine() {
    return this.picture.maps.length > 1;
  }

  async openFine() {
    const map = this.picture.maps[1];
    const bytes = await bytesOf(map.blocks[this.index]); // large, so not kept for the next time
    this.fine = new Grid(this.picture, map, numbersOf(bytes, map.codec));
  }

  async openTop() {
    const { topKeys } = this.picture;
    const [keys, weights] = await Promise.all([indices(topKeys, this.index), numbers(topKeys, this.index)]);
    this.top = { keys, weights, count: topKeys.count, every: topKeys.every };
  }

  /** The map whose cells are single weights, if there is one. */
  get exact() {
    return [this.coarse, this.fine].find((grid) => grid?.exact) ?? null;
  }

  /** The largest weights of a query, [{index, weight}], or null where the page does not have them. */
  topKeys(query) {
    if (!this.top) return this.exact ? largest(this.rowOf(query), 8) : null;
    const { keys, weights, count, every } = this.top;
    if (query % every) return null;
    const found = [];
    for (let at = (query / every) * count; found.length < count && keys[at] !== NONE; at++) {
      found.push({ index: keys[at], weight: weights[at] });
    }
    return found;
  }

  rowOf(query) {
    const { exact } = this;
    return exact.values.subarray(query * exact.columns, (query + 1) * exact.columns);
  }

  /** What a query attends to: a number for each key, and how it is known ("exact", "top", "block" or null). */
  weightsFrom(query) {
    const { keys } = this.picture;
    if (this.exact) return { known: "exact", values: this.rowOf(query) };
    const top = this.topKeys(query);
    const values = new Float32Array(keys);
    if (top) {
      for (const { index, weight } of top) values[index] = weight;
      return { known: "top", values };
    }
    const grid = this.fine ?? this.coarse;
    if (!grid) return { known: null, values };
    const row = grid.rowOf(query);
    for (let key = 0; key < keys; key++) values[key] = grid.mean(row, grid.columnOf(key));
    return { known: "block", values, block: grid.queriesOf(row) };
  }

  /** Who attends to a key: a number for each query. */
  weightsTo(key) {
    const grid = this.exact ?? this.fine ?? this.coarse;
    const values = new Float32Array(this.picture.queries);
    if (!grid) return { known: null, values };
    const column = grid.columnOf(key);
    for (let query = 0; query < values.length; query++) values[query] = grid.mean(grid.rowOf(query), column);
    return { known: grid.exact ? "exact" : "block", values, block: grid.keysOf(column) };
  }
}

/** The largest of some weights, in descending order, zeros left out. */
function largest(weights, count) {
  const order = Array.from(weights.keys()).filter((index) => weights[index] > 0);
  order.sort((a, b) => weights[b] - weights[a] || a - b);
  return order.slice(0, count).map((index) => ({ index, weight: weights[index] }));
}
