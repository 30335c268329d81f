// The small world of live.py, for a page without a kernel: eight signals on which two views agree more or less, 24
// channels of noise, and a linear encoder z = x W. The numbers it draws are uniform with variance 1 and not normal:
// C and the loss depend on their second moments alone.

import { effectiveRank, eigenvalues } from "./evaluate.js";
import { Linear } from "./layers.js";
import { barlowTwinsLoss, lossFloor, lossSpace } from "./loss.js";
import { freeFrom, startMatmul, tensor, used } from "./matmul.js";
import { AdamW } from "./network.js";
import { Random } from "./random.js";

const SIGNALS = 8, CHANNELS = 32, BEST = 0.98, WORST = 0.6, RATE = 0.03;
const RELIABILITY = Float64Array.from({ length: CHANNELS }, (_, i) =>
  (i < SIGNALS ? BEST + (WORST - BEST) * i / (SIGNALS - 1) : 0));

// `lambd` may change between steps; `resize` changes the batch, `reset` begins afresh.
export class LiveProblem {
  constructor(dim, batch, lambd, seed = 0) {
    Object.assign(this, { dim, batch, lambd, seed });
    this.reset();
  }

  // Fresh weights, the same at every call, and step 0.
  reset(dim = this.dim) {
    startMatmul();
    this.dim = dim;
    this.random = new Random(this.seed);
    this.encoder = new Linear(CHANNELS, dim, this.random);
    const weights = this.encoder.w.value.data;
    for (let i = 0; i < weights.length; i += 1) weights[i] *= Math.SQRT1_2; // of variance 1 / 32, as in live.py
    this.optimizer = new AdamW(this.encoder.weights, 0.95);
    this.behindWeights = used();
    this.steps = 0;
    this.resize(this.batch);
  }

  resize(batch) {
    freeFrom(this.behindWeights);
    this.batch = batch;
    [this.x, this.z, this.g] = [CHANNELS, this.dim, this.dim].map((columns) => tensor(2 * batch, columns));
    this.space = lossSpace(batch, this.dim);
    this.look();
  }

  // A fresh batch of both views: x (2 N, 32), all first views and then all second ones.
  draw() {
    const x = this.x.data, n = this.batch, normal = () => this.random.uniform(-1, 1) * Math.sqrt(3);
    for (let i = 0; i < n; i += 1) {
      for (let k = 0; k < CHANNELS; k += 1) {
        const shared = RELIABILITY[k] ? Math.sqrt(RELIABILITY[k]) * normal() : 0, own = Math.sqrt(1 - RELIABILITY[k]);
        x[i * CHANNELS + k] = shared + own * normal();
        x[(n + i) * CHANNELS + k] = shared + own * normal();
      }
    }
  }

  // Measure C and the terms on a fresh batch, without a step.
  look() {
    this.draw();
    this.encoder.forward(this.x, this.z);
    const both = (t) => [t.part(0, this.batch), t.part(this.batch, this.batch)];
    this.terms = barlowTwinsLoss(...both(this.z), ...both(this.g), this.space, { lambd: this.lambd });
  }

  step() {
    this.look();
    this.encoder.backward(this.x, this.z, this.g, null);
    this.optimizer.step(RATE, 0);
    this.steps += 1;
  }

  get c() { return this.space.c.data; }

  get floor() {
    return Math.max(...[this.batch, SIGNALS + 1].map((n) => lossFloor(n, this.dim, this.lambd)));
  }

  // How many different things the dimensions say: effective rank of the columns of W, each of length 1. The small
  // square matrix W Wᵀ has the same singular values.
  distinct() {
    const w = this.encoder.w.value.data, d = this.dim, square = new Float64Array(CHANNELS ** 2);
    for (let j = 0; j < d; j += 1) {
      let length = 0;
      for (let i = 0; i < CHANNELS; i += 1) length += w[i * d + j] ** 2;
      for (let i = 0; i < CHANNELS; i += 1) {
        for (let k = 0; k < CHANNELS; k += 1) square[i * CHANNELS + k] += w[i * d + j] * w[k * d + j] / length;
      }
    }
    return effectiveRank(eigenvalues(square, CHANNELS));
  }
}
