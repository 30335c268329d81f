// Encoder and projector: a list of layers, what flows through them, and the optimizer.

import { BiasReLU, Convolution, Linear, NormReLU, Pool } from "./layers.js";
import { tensor } from "./matmul.js";
import { Random } from "./random.js";

// encoder: "conv" (each block halves the resolution and doubles the channels) or "mlp" (8 width units a layer).
// Embeddings z have D dimensions; features h are what the encoder gives, where the projector begins.
export class Network {
  constructor({ encoder, depth, width, norm, dim, seed, size, hidden = 128 }) {
    const random = new Random(seed), between = (columns) => (norm ? new NormReLU(columns) : new BiasReLU(columns));
    const layers = [];
    let columns = encoder === "conv" ? 3 : 3 * size * size;
    for (let block = 0, side = size; block < depth; block += 1) {
      const outputs = width * (encoder === "conv" ? 2 ** block : 8);
      layers.push(encoder === "conv" ? new Convolution(columns, outputs, side, random) : new Linear(columns, outputs, random));
      layers.push(between(outputs));
      columns = outputs;
      side = Math.ceil(side / 2);
      if (encoder === "conv" && block === depth - 1) layers.push(new Pool(side * side, columns));
    }
    this.features = columns;
    this.encoderLayers = layers.length;
    layers.push(new Linear(columns, hidden, random), between(hidden), new Linear(hidden, dim, random));
    this.layers = layers;
    this.weights = layers.flatMap((layer) => layer.weights);
    this.pixels = encoder === "conv" ? size * size : 1; // rows an image takes where it goes in
    this.inputs = 3 * size * size / this.pixels;
  }

  // Tensors for `images` images; with `training` also for the gradients.
  space(images, training) {
    const values = [tensor(images * this.pixels, this.inputs)];
    for (const layer of this.layers) values.push(tensor(...layer.shape(values.at(-1).rows)));
    const grads = training ? values.map((x, i) => (i ? tensor(x.rows, x.columns) : null)) : null;
    return { images, values, grads };
  }

  forward(space, views) {
    this.layers.forEach((layer, i) => layer.forward(space.values[i], space.values[i + 1], views));
    return { h: space.values[this.encoderLayers], z: space.values.at(-1) };
  }

  backward({ values, grads }, views) { // from ∂L/∂z, which stands in the last of grads
    for (let i = this.layers.length - 1; i >= 0; i -= 1) {
      this.layers[i].backward(values[i], values[i + 1], grads[i + 1], grads[i], views);
    }
  }

  parameters() {
    return this.weights.reduce((sum, w) => sum + w.value.data.length, 0);
  }
}

// AdamW (Loshchilov and Hutter, 2019), as torch.optim has it; only matrices decay. `second` is β₂.
export class AdamW {
  constructor(weights, second = 0.999) {
    Object.assign(this, { weights, second });
    this.moments = weights.map((w) => [tensor(w.value.rows, w.value.columns), tensor(w.value.rows, w.value.columns)]);
    this.steps = 0;
  }

  step(rate, decay) {
    const { second } = this;
    this.steps += 1;
    const one = 1 - 0.9 ** this.steps, two = Math.sqrt(1 - this.second ** this.steps);
    this.weights.forEach((w, k) => {
      const value = w.value.data, grad = w.grad.data, [m, v] = this.moments[k].map((x) => x.data);
      const keep = w.decays ? 1 - rate * decay : 1;
      for (let i = 0; i < value.length; i += 1) {
        m[i] = 0.9 * m[i] + 0.1 * grad[i];
        v[i] = second * v[i] + (1 - second) * grad[i] * grad[i];
        value[i] = value[i] * keep - rate / one * m[i] / (Math.sqrt(v[i]) / two + 1e-8);
      }
    });
  }
}
