// A training: settings, one step, and what the network knows. The worker of the page drives it; so do the tests.

import { effectiveRank, eigenvalues, knnAccuracy, nearest, principalDirections, scatter, unitRows } from "./evaluate.js";
import { barlowTwinsLoss, crossCorrelation, lossFloor, lossSpace, simclrLoss, vicregLoss } from "./loss.js";
import { freeTensors, freeFrom, multiply, Tensor, tensor, used } from "./matmul.js";
import { AdamW, Network } from "./network.js";
import { Random } from "./random.js";
import { DEFAULTS } from "./settings.js";
import { drawView, makeView, normalize } from "./views.js";

const LOSSES = { barlow: barlowTwinsLoss, vicreg: vicregLoss, simclr: simclrLoss };
const ARCHITECTURE = ["encoder", "depth", "width", "norm", "dim", "seed"];
const DECAY = 1e-4, NEIGHBOURS = 20;

// images: {size, train: {pixels, labels}, test: {pixels, labels}}; pixels are bytes (n, size, size, 3). `bank` is how
// many of the training images the votes are cast by.
export class Trainer {
  constructor(images, settings = {}, bank = 1000) {
    Object.assign(this, { images, bank, settings: { ...DEFAULTS, ...settings } });
    this.queries = images.test.labels.length;
    this.area = 3 * images.size ** 2;
    this.reset();
  }

  // Fresh weights, the same for the same seed, and step 0.
  reset() {
    freeTensors();
    const { size } = this.images;
    this.network = new Network({ ...this.settings, size });
    this.optimizer = new AdamW(this.network.weights);
    this.clean = this.cleanImages();
    this.similarity = tensor(this.queries, this.bank);
    this.beforeBatch = used();
    this.random = new Random(this.settings.seed + 1);
    this.order = [];
    this.step = 0;
    this.directions = Float64Array.from({ length: 2 * this.network.features }, () => this.random.uniform(-1, 1));
    this.layOut();
    this.untrained = null;
  }

  // What depends on the batch size: laid out behind the weights, which stay.
  layOut() {
    freeFrom(this.beforeBatch);
    const { batch, dim } = this.settings;
    this.space = this.network.space(2 * batch, true);
    this.loss = lossSpace(batch, dim);
    this.scratch = new Float32Array(this.area);
    this.rows = new Int32Array(batch);
  }

  // New settings, at any time. Returns whether the network had to begin afresh.
  set(settings) {
    const before = this.settings;
    this.settings = { ...before, ...settings };
    const changed = (key) => before[key] !== this.settings[key];
    if (ARCHITECTURE.some(changed)) {
      this.reset();
      return true;
    }
    if (changed("batch")) this.layOut();
    return false;
  }

  drawBatch() {
    const { batch } = this.settings, n = this.images.train.labels.length;
    for (let i = 0; i < batch; i += 1) {
      if (!this.order.length) this.order = Array.from(this.random.shuffled(n));
      this.rows[i] = this.order.pop();
    }
  }

  // Draw a batch and two views of each image into the network's input: all first views, then all second views.
  drawTwins() {
    this.drawBatch();
    const { size, train } = this.images, { crop, flip, colour, grey, batch } = this.settings;
    const dials = { crop, flip: flip ? 0.5 : 0, colour, grey }, input = this.space.values[0].data;
    for (let i = 0; i < 2 * batch; i += 1) {
      const row = this.rows[i % batch], image = train.pixels.subarray(row * this.area, (row + 1) * this.area);
      makeView(image, drawView(this.random, dials, size), size, this.scratch);
      normalize(this.scratch, input.subarray(i * this.area, (i + 1) * this.area));
    }
  }

  // Embed the twins that are in place; with `learn` also change the weights. Returns the loss and its terms.
  useTwins(learn = true) {
    const { batch, method, lambda, pull, push, rate } = this.settings;
    const { z } = this.network.forward(this.space, 2), g = this.space.grads.at(-1);
    const [zA, zB, gA, gB] = [z.part(0, batch), z.part(batch, batch), g.part(0, batch), g.part(batch, batch)];
    this.terms = LOSSES[method](zA, zB, gA, gB, this.loss, { lambd: lambda, pull, push });
    if (method !== "barlow") crossCorrelation(zA, zB, this.loss);
    if (learn && Number.isFinite(this.terms.loss)) {
      this.network.backward(this.space, 2);
      this.optimizer.step(rate, DECAY);
      this.step += 1;
    }
    return this.terms;
  }

  train() {
    this.drawTwins();
    return this.useTwins();
  }

  get floor() {
    const { method, batch, dim, lambda, pull, push } = this.settings;
    return method === "barlow" && pull && push ? lossFloor(batch, dim, lambda) : 0;
  }

  // ---- what it knows ----------------------------------------------------------------------------------------

  cleanImages() { // the bank, then the queries; and two tensors through which layers pass them on
    const { train, test } = this.images, n = this.bank + this.queries;
    const { pixels, inputs, layers } = this.network, input = tensor(n * pixels, inputs), bytes = new Float32Array(this.area);
    for (let i = 0; i < n; i += 1) {
      const [from, row] = i < this.bank ? [train, i] : [test, i - this.bank];
      from.pixels.subarray(row * this.area, (row + 1) * this.area).forEach((value, k) => { bytes[k] = value / 255; });
      normalize(bytes, input.data.subarray(i * this.area, (i + 1) * this.area));
    }
    let rows = input.rows, most = 0;
    for (const layer of layers) {
      const [r, c] = layer.shape(rows);
      most = Math.max(most, r * c);
      rows = r;
    }
    return { input, pair: [tensor(most, 1), tensor(most, 1)] };
  }

  // Features h and embeddings z of all clean images. Batch norms take their statistics from these images.
  embedClean() {
    let x = this.clean.input, h = null;
    this.network.layers.forEach((layer, i) => {
      const y = this.clean.pair[i % 2].shaped(...layer.shape(x.rows));
      layer.forward(x, y, 1);
      x = y;
      if (i === this.network.encoderLayers - 1) h = Float32Array.from(y.data);
    });
    return { h, z: Float32Array.from(x.data) };
  }

  // Cosines of every query with every image of the bank, from rows of features.
  compare(features, d) {
    const unit = unitRows(features, this.bank + this.queries, d);
    const table = new Tensor(this.bank + this.queries, d, this.clean.pair[0].at);
    const fits = table.rows * d <= this.clean.pair[0].rows;
    const all = fits ? table : this.clean.input.shaped(table.rows, d);
    all.data.set(unit);
    multiply(all.part(this.bank, this.queries), all.part(0, this.bank), this.similarity, { right: true });
    return this.similarity.data;
  }

  accuracy(similarity) {
    const { train, test } = this.images;
    return knnAccuracy(similarity, this.bank, train.labels.subarray(0, this.bank), test.labels, NEIGHBOURS);
  }

  // Accuracy of the pixels themselves, and their neighbours: once, for they never change.
  judgePixels(count) {
    const similarity = this.compare(this.clean.input.data, this.area);
    return { accuracy: this.accuracy(similarity), neighbours: this.neighbours(similarity, count) };
  }

  neighbours(similarity, count) { // of every query
    const out = new Int16Array(this.queries * count);
    for (let i = 0; i < this.queries; i += 1) {
      out.set(nearest(similarity.subarray(i * this.bank, (i + 1) * this.bank), count), i * count);
    }
    return out;
  }

  // Everything that is known of the present network.
  judge(count) {
    const d = this.network.features, n = this.bank + this.queries, { h, z } = this.embedClean();
    const similarity = this.compare(h, d);
    const spread = scatter(h, n, d), { dim } = this.settings;
    principalDirections(spread.out, d, this.directions);
    const map = new Float32Array(2 * this.queries);
    for (let i = 0; i < this.queries; i += 1) {
      for (let j = 0; j < d; j += 1) {
        const value = h[(this.bank + i) * d + j] - spread.mean[j];
        map[2 * i] += value * this.directions[j];
        map[2 * i + 1] += value * this.directions[d + j];
      }
    }
    return {
      step: this.step,
      accuracy: this.accuracy(similarity),
      neighbours: this.neighbours(similarity, count),
      rankH: effectiveRank(eigenvalues(spread.out, d)),
      rankZ: effectiveRank(eigenvalues(scatter(z, n, dim).out, dim)),
      map,
    };
  }
}

// How far C (D, D) is from the identity: ‖C − I‖_F / √D.
export function distanceToIdentity(c, d) {
  let sum = 0;
  for (let i = 0; i < d * d; i += 1) sum += (c[i] - (i % (d + 1) === 0 ? 1 : 0)) ** 2;
  return Math.sqrt(sum / d);
}
