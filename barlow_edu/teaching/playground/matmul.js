// Matrix products, where all the time of a training goes.
//
// The inner loops are WebAssembly with 128-bit SIMD (every browser since 2023): of a product, a tile of 4 x 8
// entries of C, kept in eight registers while k runs. This file writes the machine code itself, a thousand bytes, so there is no binary
// to trust and nothing to compile. Sums run over k in order and are never fused, so that every browser on every
// machine computes the same bits. Without SIMD the same sums are done in JavaScript, slower.

const TILE_ROWS = 4, TILE_COLUMNS = 8;

// ---- the machine code ---------------------------------------------------------------------------------------

const I32 = 0x7f, V128 = 0x7b;
const unsigned = (n) => (n < 128 ? [n] : [(n & 127) | 128, ...unsigned(n >>> 7)]);
const signed = (n) => (n >= -64 && n < 64 ? [n & 127] : [(n & 127) | 128, ...signed(n >> 7)]);
const section = (id, bytes) => [id, ...unsigned(bytes.length), ...bytes];
const text = (word) => [word.length, ...[...word].map((c) => c.charCodeAt(0))];
const get = (i) => [0x20, ...unsigned(i)], set = (i) => [0x21, ...unsigned(i)];
const constant = (n) => [0x41, ...signed(n)], add = [0x6a], subtract = [0x6b];
const simd = (code, ...rest) => [0xfd, ...unsigned(code), ...rest];
const load = (offset) => simd(0, 2, ...unsigned(offset)); // v128.load
const splat = simd(9, 2, 0); // v128.load32_splat
const store = (offset) => simd(11, 2, ...unsigned(offset));
const addFloats = simd(0xe4), multiplyFloats = simd(0xe6), largerFloats = simd(0xe9);
const greater = simd(0x44), and = simd(0x4e);
const zero = simd(12, ...new Array(16).fill(0));
const step = (i, by) => [...get(i), ...by, ...add, ...set(i)];
// Runs `body` until the counter, decreased by one each time, is zero.
const repeat = (counter, body) => [0x03, 0x40, ...body, ...get(counter), ...constant(1), ...subtract,
  0x22, ...unsigned(counter), 0x0d, 0, 0x0b];

// A function of the module: how many integers it takes, how many more and how many vectors it needs, and its code.
const program = (name, takes, more, vectors, body) => ({ name, takes, bytes: [2, more, I32, vectors, V128, ...body, 0x0b] });

// strip(a, b, c, rowStep, columnStep, cStep, k, blocks): for each of `blocks` groups of 4 rows,
// C[4, 8] += A[4, k] B[k, 8]. A has any strides (in bytes), B lies packed, C has rows `cStep` bytes apart.
function stripProgram() {
  const [a, b, c, rowStep, columnStep, cStep, k, blocks, at, bAt, count, row] = Array(12).keys();
  const [b0, b1, spread, first] = [12, 13, 14, 15];
  const tile = [];
  for (let r = 0; r < TILE_ROWS; r += 1) { // begin with what C holds
    tile.push(...(r ? [...get(row), ...get(cStep), ...add] : get(c)), ...set(row));
    for (let h = 0; h < 2; h += 1) tile.push(...get(row), ...load(16 * h), ...set(first + 2 * r + h));
  }
  tile.push(...get(a), ...set(at), ...get(b), ...set(bAt), ...get(k), ...set(count));
  const inner = [...get(bAt), ...load(0), ...set(b0), ...get(bAt), ...load(16), ...set(b1), ...get(at), ...set(row)];
  for (let r = 0; r < TILE_ROWS; r += 1) {
    inner.push(...get(row), ...splat, ...set(spread));
    if (r < TILE_ROWS - 1) inner.push(...step(row, get(rowStep)));
    for (let h = 0; h < 2; h += 1) {
      const sum = first + 2 * r + h;
      inner.push(...get(sum), ...get(spread), ...get(h ? b1 : b0), ...multiplyFloats, ...addFloats, ...set(sum));
    }
  }
  inner.push(...step(at, get(columnStep)), ...step(bAt, constant(4 * TILE_COLUMNS)));
  tile.push(...repeat(count, inner), ...get(c), ...set(row));
  for (let r = 0; r < TILE_ROWS; r += 1) {
    for (let h = 0; h < 2; h += 1) tile.push(...get(row), ...get(first + 2 * r + h), ...store(16 * h));
    if (r < TILE_ROWS - 1) tile.push(...step(row, get(cStep)));
  }
  tile.push(...step(a, [...get(rowStep), ...constant(2), 0x74]), ...step(c, [...get(cStep), ...constant(2), 0x74]));
  return program("strip", 8, 4, 11, repeat(blocks, tile));
}

// The rest works on four neighbouring columns at a time, in n rows `by` bytes apart.
const programs = [
  stripProgram(),
  // sums(a, b, n, by, out): out = Σ a, then Σ a b.
  program("sums", 5, 0, 3, [...repeat(2, [
    ...get(0), ...load(0), ...set(5), ...get(6), ...get(5), ...addFloats, ...set(6),
    ...get(7), ...get(5), ...get(1), ...load(0), ...multiplyFloats, ...addFloats, ...set(7),
    ...step(0, get(3)), ...step(1, get(3))]),
  ...get(4), ...get(6), ...store(0), ...get(4), ...get(7), ...store(16)]),
  // rectified(x, y, factors, n, by): y = max(0, x · factors[0..3] + factors[4..7]).
  program("rectified", 5, 0, 2, [...get(2), ...load(0), ...set(5), ...get(2), ...load(16), ...set(6), ...repeat(3, [
    ...get(1), ...get(0), ...load(0), ...get(5), ...multiplyFloats, ...get(6), ...addFloats, ...zero, ...largerFloats,
    ...store(0), ...step(0, get(4)), ...step(1, get(4))])]),
  // mixed(g, x, out, factors, n, by): out = g · factors[0..3] + x · factors[4..7] + factors[8..11].
  program("mixed", 6, 0, 3, [...[0, 1, 2].flatMap((i) => [...get(3), ...load(16 * i), ...set(6 + i)]), ...repeat(4, [
    ...get(2), ...get(0), ...load(0), ...get(6), ...multiplyFloats, ...get(1), ...load(0), ...get(7), ...multiplyFloats,
    ...addFloats, ...get(8), ...addFloats, ...store(0), ...step(0, get(5)), ...step(1, get(5)), ...step(2, get(5))])]),
  // masked(g, y, n): g = 0 where y is not above 0; four numbers at a time.
  program("masked", 3, 0, 0, repeat(2, [
    ...get(0), ...get(0), ...load(0), ...get(1), ...load(0), ...zero, ...greater, ...and, ...store(0),
    ...step(0, constant(16)), ...step(1, constant(16))])),
  // copied(from, to, count, lines, fromStep, toStep): lines of `count` times four numbers; added to what is there.
  ...["copied", "added"].map((name) => program(name, 6, 3, 0, repeat(3, [
    ...get(0), ...set(6), ...get(1), ...set(7), ...get(2), ...set(8), ...repeat(8, [
      ...get(7), ...get(6), ...load(0), ...(name === "added" ? [...get(7), ...load(0), ...addFloats] : []), ...store(0),
      ...step(6, constant(16)), ...step(7, constant(16))]),
    ...step(0, get(4)), ...step(1, get(5))]))),
];

function machineCode() {
  const types = programs.map(({ takes }) => [0x60, takes, ...Array(takes).fill(I32), 0]).flat();
  const bodies = programs.flatMap(({ bytes }) => [...unsigned(bytes.length), ...bytes]), n = programs.length;
  const exported = programs.flatMap(({ name }, i) => [...text(name), 0, i]);
  return new Uint8Array([0, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, [n, ...types]), ...section(2, [1, ...text("e"), ...text("m"), 2, 0, 1]),
    ...section(3, [n, ...Array(n).keys()]), ...section(7, [n, ...exported]), ...section(10, [n, ...bodies])]);
}

// The same in JavaScript, for browsers without SIMD. Addresses are bytes, as above.
const plain = {
  sums(a, b, n, by, out) {
    for (let j = 0; j < 4; j += 1) {
      let [one, two] = [0, 0];
      for (let i = 0, p = a / 4 + j, q = b / 4 + j; i < n; i += 1, p += by / 4, q += by / 4) {
        one += floats[p];
        two += floats[p] * floats[q];
      }
      floats[out / 4 + j] = one;
      floats[out / 4 + 4 + j] = two;
    }
  },
  rectified(x, y, factors, n, by) {
    for (let i = 0; i < n; i += 1) {
      for (let j = 0; j < 4; j += 1) {
        const value = floats[(x + i * by) / 4 + j] * floats[factors / 4 + j] + floats[factors / 4 + 4 + j];
        floats[(y + i * by) / 4 + j] = Math.max(value, 0);
      }
    }
  },
  mixed(g, x, out, factors, n, by) {
    for (let i = 0; i < n; i += 1) {
      for (let j = 0, at = i * by / 4, f = factors / 4; j < 4; j += 1, at += 1, f += 1) {
        floats[out / 4 + at] = floats[g / 4 + at] * floats[f] + floats[x / 4 + at] * floats[f + 4] + floats[f + 8];
      }
    }
  },
  masked(g, y, n) {
    for (let i = 0; i < 4 * n; i += 1) if (!(floats[y / 4 + i] > 0)) floats[g / 4 + i] = 0;
  },
  copied(from, to, count, lines, fromStep, toStep) {
    for (let l = 0; l < lines; l += 1) {
      for (let i = 0; i < 4 * count; i += 1) floats[(to + l * toStep) / 4 + i] = floats[(from + l * fromStep) / 4 + i];
    }
  },
  added(from, to, count, lines, fromStep, toStep) {
    for (let l = 0; l < lines; l += 1) {
      for (let i = 0; i < 4 * count; i += 1) floats[(to + l * toStep) / 4 + i] += floats[(from + l * fromStep) / 4 + i];
    }
  },
};
let run = plain, floats = null;
// What the layers call: run.sums and the others, whichever there is.
export const kernels = () => run;

// ---- memory --------------------------------------------------------------------------------------------------

// All tensors of a network live one behind another in one memory, which is laid out anew when the architecture
// changes and never grows while a network trains.
const PAGE = 65536, SLACK = 1024, CHUNK = 256; // CHUNK: rows of B that are packed at a time, 8 kB
const memory = new WebAssembly.Memory({ initial: 64 });
let strip = null, free = SLACK;
let packed = null, edge = null, few = null; // where products put what they are working on

export function startMatmul(simd = true) {
  run = plain;
  try {
    if (simd) run = new WebAssembly.Instance(new WebAssembly.Module(machineCode()), { e: { m: memory } }).exports;
  } catch (error) { /* a browser without SIMD */ }
  strip = run.strip;
  freeTensors();
  return strip ? "WebAssembly SIMD" : "JavaScript";
}

// A row-major table of float32 numbers in the common memory.
export class Tensor {
  constructor(rows, columns, at) {
    Object.assign(this, { rows, columns, at, view: null });
  }

  get data() { // a view ends when the memory grows
    if (!this.view || this.view.buffer !== memory.buffer) {
      this.view = new Float32Array(memory.buffer, this.at, this.rows * this.columns);
    }
    return this.view;
  }

  part(start, rows) { // some rows, the same memory
    return new Tensor(rows, this.columns, this.at + 4 * start * this.columns);
  }

  shaped(rows, columns) { // the same numbers in another shape
    return new Tensor(rows, columns, this.at);
  }
}

export function tensor(rows, columns) {
  const at = free;
  free += 16 * Math.ceil(rows * columns / 4) + 16;
  const missing = free + SLACK - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  if (!floats || floats.buffer !== memory.buffer) floats = new Float32Array(memory.buffer);
  const made = new Tensor(rows, columns, at);
  made.data.fill(0);
  return made;
}

// Forget all tensors.
export function freeTensors() {
  free = SLACK;
  packed = tensor(CHUNK, TILE_COLUMNS);
  edge = tensor(TILE_ROWS, TILE_COLUMNS);
  few = tensor(4, 4);
}

// Sixteen numbers that kernels take or give.
export const scratch = () => few;

// ---- the product ----------------------------------------------------------------------------------------------

// C = A B, or C += A B with `more`; `left` and `right` say which of A and B is to be taken transposed.
export function multiply(a, b, c, { left = false, right = false, more = false } = {}) {
  const m = c.rows, n = c.columns, k = left ? a.rows : a.columns;
  const [aRow, aColumn] = left ? [1, a.columns] : [a.columns, 1];
  const [bRow, bColumn] = right ? [1, b.columns] : [b.columns, 1];
  if (!more) c.data.fill(0);
  if (!strip) return plainProduct(a.data, b.data, c.data, { m, n, k, aRow, aColumn, bRow, bColumn });
  const bData = b.data, p = packed.data, whole = Math.floor(m / TILE_ROWS);
  for (let start = 0; start < k; start += CHUNK) {
    const depth = Math.min(CHUNK, k - start);
    const aAt = a.at + 4 * start * aColumn;
    for (let j = 0; j < n; j += TILE_COLUMNS) {
      const wide = Math.min(TILE_COLUMNS, n - j);
      if (wide < TILE_COLUMNS) p.fill(0);
      for (let i = 0, at = 0; i < depth; i += 1, at += TILE_COLUMNS) {
        let from = (start + i) * bRow + j * bColumn;
        for (let q = 0; q < wide; q += 1, from += bColumn) p[at + q] = bData[from];
      }
      const full = wide === TILE_COLUMNS ? whole : 0;
      if (full) strip(aAt, packed.at, c.at + 4 * j, 4 * aRow, 4 * aColumn, 4 * n, depth, full);
      if (full * TILE_ROWS < m) atTheEdge(c, { row: full * TILE_ROWS, j, wide, aAt, aRow, aColumn, depth });
    }
  }
}

// Tiles that stick out of C are computed beside it.
function atTheEdge(c, { row, j, wide, aAt, aRow, aColumn, depth }) {
  const out = edge.data, m = c.rows, n = c.columns, data = c.data;
  for (let i = row; i < m; i += TILE_ROWS) {
    out.fill(0);
    strip(aAt + 4 * i * aRow, packed.at, edge.at, 4 * aRow, 4 * aColumn, 4 * TILE_COLUMNS, depth, 1);
    for (let r = 0; r < Math.min(TILE_ROWS, m - i); r += 1) {
      for (let q = 0; q < wide; q += 1) data[(i + r) * n + j + q] += out[r * TILE_COLUMNS + q];
    }
  }
}

function plainProduct(a, b, c, { m, n, k, aRow, aColumn, bRow, bColumn }) {
  for (let i = 0; i < m; i += 1) {
    for (let p = 0; p < k; p += 1) {
      const value = a[i * aRow + p * aColumn];
      for (let j = 0, at = p * bRow; j < n; j += 1, at += bColumn) c[i * n + j] += value * b[at];
    }
  }
}

// Where the next tensor goes, and everything from there on thrown away.
export const used = () => free;

export function freeFrom(at) {
  free = at;
}
