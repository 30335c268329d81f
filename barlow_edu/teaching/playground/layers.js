// The layers of encoder and projector. Each has forward(x, y, views) and backward(x, y, g, dx): x and y are what goes
// in and comes out, g = ∂L/∂y, and dx receives ∂L/∂x (null for the first layer, which nobody asks). Weights have
// their gradient beside them. Rows are images, and in a convolution pixels of images; columns are channels.
// `views` is the number of views that lie one behind another: each has a batch norm of its own, as in the paper's code.

import { kernels, multiply, scratch, tensor } from "./matmul.js";

const EPSILON = 1e-5; // of batch norm

class Weights {
  constructor(rows, columns, decays) {
    this.value = tensor(rows, columns);
    this.grad = tensor(rows, columns);
    this.decays = decays;
  }

  drawn(random, fan) { // uniform within ± √(6 / fan): what rectified layers need (He et al., 2015)
    const bound = Math.sqrt(6 / fan), value = this.value.data;
    for (let i = 0; i < value.length; i += 1) value[i] = random.uniform(-bound, bound);
    return this;
  }
}

// y = x W: x (rows, inputs), W (inputs, outputs).
export class Linear {
  constructor(inputs, outputs, random) {
    this.w = new Weights(inputs, outputs, true).drawn(random, inputs);
    this.weights = [this.w];
  }

  shape(rows) { return [rows, this.w.value.columns]; }

  forward(x, y) { multiply(x, this.w.value, y); }

  backward(x, y, g, dx) {
    multiply(x, g, this.w.grad, { left: true });
    if (dx) multiply(g, this.w.value, dx, { right: true });
  }
}

const PATCHES = 512; // rows that are unfolded at a time, so that they stay in the processor's cache

// A 3 x 3 convolution that halves the resolution: x (images · size², inputs) -> y (images · (size/2)², outputs).
// Patches are laid out as rows of a table, and the rest is a matrix product: W is (9 · inputs, outputs). A row holds
// the nine pixels of a patch, three lines of three neighbours; what lies outside of the image is zero.
export class Convolution {
  constructor(inputs, outputs, size, random) {
    Object.assign(this, { inputs, size, half: Math.ceil(size / 2) });
    this.w = new Weights(9 * inputs, outputs, true).drawn(random, 9 * inputs);
    this.weights = [this.w];
    this.lines = Math.max(1, Math.floor(PATCHES / this.half)); // of patches, at a time
    this.patches = tensor(this.lines * this.half, 9 * inputs);
  }

  shape(rows) { return [rows / this.size ** 2 * this.half ** 2, this.w.value.columns]; }

  forward(x, y) {
    this.eachPart(y, (start, lines) => {
      multiply(this.unfold(x, start, lines), this.w.value, y.part(start * this.half, lines * this.half));
    });
  }

  backward(x, y, g, dx) {
    if (dx) dx.data.fill(0);
    this.w.grad.data.fill(0);
    this.eachPart(y, (start, lines) => {
      const part = this.unfold(x, start, lines), gPart = g.part(start * this.half, part.rows);
      multiply(part, gPart, this.w.grad, { left: true, more: true });
      if (!dx) return;
      multiply(gPart, this.w.value, part, { right: true });
      this.eachRun(part, dx, lines, start, kernels().added, true);
    });
  }

  eachPart(y, act) {
    const all = y.rows / this.half;
    for (let start = 0; start < all; start += this.lines) act(start, Math.min(this.lines, all - start));
  }

  unfold(x, start, lines) {
    const part = this.patches.part(0, lines * this.half);
    if (this.inputs % 4) this.unfoldSlowly(x, part, start, lines);
    else {
      part.data.fill(0);
      this.eachRun(part, x, lines, start, kernels().copied, false);
    }
    return part;
  }

  // The pixels that the patches of a line share with a line of the image lie one behind another: one call for the
  // patches that are inside, and one for the first, whose left pixel is outside.
  eachRun(part, image, lines, start, act, back) {
    const { size, half, inputs: c } = this, row = 4 * 9 * c, line = 4 * size * c;
    for (let l = 0, to = part.at; l < lines; l += 1, to += half * row) {
      const i = (start + l) % half, top = image.at + ((start + l - i) / half * size + 2 * i - 1) * line;
      for (let k = 0; k < 3; k += 1) {
        if (i === 0 && k === 0) continue;
        const from = top + k * line, into = to + 12 * k * c;
        if (back) {
          act(into + 4 * c, from, c / 2, 1, 0, 0);
          if (half > 1) act(into + row, from + 4 * c, 3 * c / 4, half - 1, row, 8 * c);
        } else {
          act(from, into + 4 * c, c / 2, 1, 0, 0);
          if (half > 1) act(from + 4 * c, into + row, 3 * c / 4, half - 1, 8 * c, row);
        }
      }
    }
  }

  unfoldSlowly(x, part, start, lines) { // the three colours of a picture
    const to = part.data, from = x.data, { size, half, inputs: c } = this, line = 3 * c, stride = size * c;
    for (let l = 0, at = 0; l < lines; l += 1) {
      const place = (start + l) % half, image = (start + l - place) / half, top = 2 * place - 1;
      for (let j = 0; j < half; j += 1) {
        const left = 2 * j - 1, first = left < 0 ? c : 0;
        for (let i = top; i < top + 3; i += 1, at += line) {
          const source = (image * size + i) * stride + left * c;
          for (let k = 0; k < line; k += 1) to[at + k] = i < 0 || k < first ? 0 : from[source + k];
        }
      }
    }
  }
}

const ROWS = 256; // that are summed in float32 before they are added to the others in float64

// Sums over the rows of a and of a · b, for each column.
function columnSums(a, b) {
  const { rows: n, columns: d } = a, out = scratch().data;
  const one = new Float64Array(d), two = new Float64Array(d), { sums } = kernels();
  for (let start = 0; start < n; start += ROWS) {
    for (let j = 0; j < d; j += 4) {
      const at = 4 * (start * d + j);
      sums(a.at + at, b.at + at, Math.min(ROWS, n - start), 4 * d, scratch().at);
      for (let i = 0; i < 4; i += 1) {
        one[j + i] += out[i];
        two[j + i] += out[4 + i];
      }
    }
  }
  return [one, two];
}

// Calls act(offset in bytes, rows, where the factors are) for blocks of rows and four columns each.
function byColumns(x, factors, act) {
  const { rows: n, columns: d } = x, to = scratch();
  for (let start = 0; start < n; start += ROWS) {
    for (let j = 0; j < d; j += 4) {
      factors.forEach((factor, k) => { for (let i = 0; i < 4; i += 1) to.data[4 * k + i] = factor[j + i]; });
      act(4 * (start * d + j), Math.min(ROWS, n - start), to.at);
    }
  }
}

// Batch norm and ReLU: y = max(0, γ x̂ + β), with x̂ standardised over the rows of each view.
export class NormReLU {
  constructor(columns) {
    this.gamma = new Weights(1, columns, false);
    this.beta = new Weights(1, columns, false);
    this.gamma.value.data.fill(1);
    this.weights = [this.gamma, this.beta];
  }

  shape(rows) { return [rows, this.gamma.value.columns]; }

  forward(x, y, views) {
    const d = x.columns, n = x.rows / views;
    this.mean = new Float64Array(views * d);
    this.scale = new Float64Array(views * d);
    for (let v = 0; v < views; v += 1) this.normalize(x.part(v * n, n), y.part(v * n, n), v * d);
  }

  normalize(x, y, at) {
    const { rows: n, columns: d } = x, [sum, squares] = columnSums(x, x);
    const mean = this.mean.subarray(at, at + d), scale = this.scale.subarray(at, at + d);
    const gamma = this.gamma.value.data, beta = this.beta.value.data;
    for (let j = 0; j < d; j += 1) {
      mean[j] = sum[j] / n;
      scale[j] = 1 / Math.sqrt(Math.max(squares[j] / n - mean[j] ** 2, 0) + EPSILON);
    }
    const times = scale.map((s, j) => s * gamma[j]), plus = mean.map((m, j) => beta[j] - m * times[j]);
    const { rectified } = kernels();
    byColumns(x, [times, plus], (offset, rows, factors) => rectified(x.at + offset, y.at + offset, factors, rows, 4 * d));
  }

  backward(x, y, g, dx, views) {
    const d = x.columns, n = x.rows / views;
    this.gamma.grad.data.fill(0);
    this.beta.grad.data.fill(0);
    for (let v = 0; v < views; v += 1) {
      this.denormalize(x.part(v * n, n), y.part(v * n, n), g.part(v * n, n), dx.part(v * n, n), v * d);
    }
  }

  denormalize(x, y, g, dx, at) {
    const { rows: n, columns: d } = x, { masked, mixed } = kernels();
    masked(g.at, y.at, n * d / 4);
    const [sum, product] = columnSums(g, x);
    const mean = this.mean.subarray(at, at + d), scale = this.scale.subarray(at, at + d), gamma = this.gamma.value.data;
    const along = product.map((p, j) => (p - mean[j] * sum[j]) * scale[j]); // Σ g x̂
    for (let j = 0; j < d; j += 1) {
      this.beta.grad.data[j] += sum[j];
      this.gamma.grad.data[j] += along[j];
    }
    // (g − Σ g / n − x̂ Σ g x̂ / n) γ / σ, with x̂ = (x − mean) / σ
    const times = scale.map((s, j) => s * gamma[j]), slope = along.map((a, j) => -a / n * scale[j] * times[j]);
    const shift = sum.map((s, j) => -s / n * times[j] - mean[j] * slope[j]);
    byColumns(x, [times, slope, shift], (offset, rows, factors) => {
      mixed(g.at + offset, x.at + offset, dx.at + offset, factors, rows, 4 * d);
    });
  }
}

// What stands in its place when batch norm is off: y = max(0, x + β).
export class BiasReLU {
  constructor(columns) {
    this.beta = new Weights(1, columns, false);
    this.weights = [this.beta];
  }

  shape(rows) { return [rows, this.beta.value.columns]; }

  forward(x, y) {
    const ones = new Float32Array(x.columns).fill(1), { rectified } = kernels();
    byColumns(x, [ones, this.beta.value.data], (offset, rows, factors) => {
      rectified(x.at + offset, y.at + offset, factors, rows, 4 * x.columns);
    });
  }

  backward(x, y, g, dx) {
    kernels().masked(g.at, y.at, g.rows * g.columns / 4);
    dx.data.set(g.data);
    this.beta.grad.data.set(columnSums(g, g)[0]);
  }
}

// The mean over all pixels: (images · pixels, channels) -> (images, channels).
export class Pool {
  constructor(pixels, columns) {
    Object.assign(this, { pixels, columns, weights: [] });
  }

  shape(rows) { return [rows / this.pixels, this.columns]; }

  forward(x, y) {
    const { pixels, columns: d } = this, from = x.data, to = y.data.fill(0);
    for (let i = 0, k = 0; i < y.rows * d; i += d) {
      for (let p = 0; p < pixels; p += 1) for (let j = 0; j < d; j += 1, k += 1) to[i + j] += from[k] / pixels;
    }
  }

  backward(x, y, g, dx) {
    const { pixels, columns: d } = this, grad = g.data, to = dx.data;
    for (let i = 0, k = 0; i < y.rows * d; i += d) {
      for (let p = 0; p < pixels; p += 1) for (let j = 0; j < d; j += 1, k += 1) to[k] = grad[i + j] / pixels;
    }
  }
}
