// The numbers that the page carries: blocks of base64, deflated, opened when they are first needed.
// codec.py writes what is read here. The files of this folder are joined into one module, this one first.

const manifest = JSON.parse(document.getElementById("manifest").textContent);

/** The bytes of a block. */
async function bytesOf(block) {
  const text = atob(document.getElementById(`block-${block}`).textContent);
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const raw = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(raw).arrayBuffer());
}

/** Bytes stand low bytes first, then next bytes: put each number's together again. */
function joined(bytes, size) {
  const count = bytes.length / size;
  const whole = new Uint8Array(bytes.length);
  for (let plane = 0; plane < size; plane++) {
    for (let i = 0; i < count; i++) whole[i * size + plane] = bytes[plane * count + i];
  }
  return whole.buffer;
}

/** What each code of a quantised array stands for. */
function meanings({ kind, bits, low, step }) {
  const table = new Float32Array(2 ** bits);
  for (let code = 1; code < table.length; code++) {
    const value = low + (code - 1) * step;
    table[code] = kind === "log" ? Math.exp(value) : value;
  }
  table[0] = kind === "log" ? 0 : -Infinity;
  table[table.length - 1] = NaN;
  return table;
}

function numbersOf(bytes, codec) {
  const buffer = joined(bytes, codec.bytes);
  if (codec.kind === "float32") return new Float32Array(buffer);
  const codes = codec.bytes === 1 ? new Uint8Array(buffer) : new Uint16Array(buffer);
  const table = meanings(codec);
  return Float32Array.from(codes, (code) => table[code]);
}

const opened = new Map();

/** One head's numbers of an array {codec, blocks}: a promise of a Float32Array, kept for the next time. */
function numbers(array, head) {
  const block = array.blocks[head];
  if (!opened.has(block))
    opened.set(
      block,
      bytesOf(block).then((bytes) => numbersOf(bytes, array.codec)),
    );
  return opened.get(block);
}

/** One head's top keys: a promise of a Uint32Array, where 2³² − 1 stands for none. */
async function indices(topKeys, head) {
  return new Uint32Array(joined(await bytesOf(topKeys.indices[head]), 4));
}

/** Labels, or null where tokens are only numbered. */
async function labelsOf(block) {
  return block === null ? null : JSON.parse(new TextDecoder().decode(await bytesOf(block)));
}
