// The loss of Barlow Twins and of two relatives, each with its gradient in closed form. What stands here mirrors
// loss.py and numerics/correlation.py of the Python package; a test feeds both the same numbers.

import { multiply, tensor } from "./matmul.js";

// Columns of mean 0 and (biased) variance 1 over the batch: z (N, D) -> a (N, D). Returns 1 / sigma of each column,
// 0 where it does not vary.
export function standardize(z, a, eps = 0) {
  const { rows: n, columns: d } = z, x = z.data, out = a.data, scale = new Float32Array(d);
  for (let j = 0; j < d; j += 1) {
    let mean = 0, variance = 0;
    for (let i = 0; i < n; i += 1) mean += x[i * d + j];
    mean /= n;
    for (let i = 0; i < n; i += 1) variance += (x[i * d + j] - mean) ** 2;
    variance /= n;
    const varies = Math.sqrt(variance) > 4 * 1.2e-7 * Math.abs(mean); // by more than rounding
    scale[j] = varies ? 1 / Math.sqrt(variance + eps) : 0;
    for (let i = 0; i < n; i += 1) out[i * d + j] = (x[i * d + j] - mean) * scale[j];
  }
  return scale;
}

// The way back: with respect to z, from the gradient g with respect to a. In place, g (N, D).
export function standardizeBackward(g, a, scale) {
  const { rows: n, columns: d } = a, grad = g.data, x = a.data;
  for (let j = 0; j < d; j += 1) {
    let mean = 0, along = 0;
    for (let i = 0; i < n; i += 1) {
      mean += grad[i * d + j];
      along += grad[i * d + j] * x[i * d + j];
    }
    mean /= n;
    along /= n;
    for (let i = 0; i < n; i += 1) grad[i * d + j] = (grad[i * d + j] - mean - x[i * d + j] * along) * scale[j];
  }
}

// What a loss needs for its work, once for every N and D.
export function lossSpace(n, d) {
  return { a: tensor(n, d), b: tensor(n, d), c: tensor(d, d), g: tensor(d, d), s: tensor(2 * n, 2 * n), u: tensor(2 * n, d) };
}

// C of two views (equation 2), z_a and z_b (N, D) -> space.c (D, D).
export function crossCorrelation(zA, zB, space) {
  const scaleA = standardize(zA, space.a), scaleB = standardize(zB, space.b);
  multiply(space.a, space.b, space.c, { left: true });
  const c = space.c.data;
  for (let i = 0; i < c.length; i += 1) c[i] /= zA.rows;
  return { scaleA, scaleB };
}

// L = Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij² (equation 1), and its gradient in gA, gB (N, D). Either term can be off.
export function barlowTwinsLoss(zA, zB, gA, gB, space, { lambd, pull = true, push = true }) {
  const { scaleA, scaleB } = crossCorrelation(zA, zB, space);
  const { a, b, c, g } = space, n = zA.rows, d = zA.columns;
  let invariance = 0, redundancy = 0;
  for (let i = 0; i < d; i += 1) {
    for (let j = 0; j < d; j += 1) {
      const value = c.data[i * d + j];
      if (i === j) {
        invariance += (1 - value) ** 2;
        g.data[i * d + j] = pull ? -2 * (1 - value) / n : 0; // ∂L/∂C, divided by N as C is
      } else {
        redundancy += value ** 2;
        g.data[i * d + j] = push ? 2 * lambd * value / n : 0;
      }
    }
  }
  multiply(b, g, gA, { right: true }); // ∂L/∂A = B Gᵀ
  multiply(a, g, gB); // ∂L/∂B = A G
  standardizeBackward(gA, a, scaleA);
  standardizeBackward(gB, b, scaleB);
  return { loss: (pull ? invariance : 0) + (push ? lambd * redundancy : 0), invariance, redundancy };
}

// The lowest loss that any N embeddings of D dimensions can reach, see loss_floor in loss.py.
export function lossFloor(n, d, lambd) {
  const excess = Math.min(lambd, 1) * (d / Math.min(n - 1, d) - 1);
  return d * excess / (1 + excess);
}

// VICReg (Bardes et al., 2022) with the weights 25, 25, 1: twins near, every dimension's deviation at least 1, and
// covariances zero. Plays with C only through the covariances of each view by itself.
export function vicregLoss(zA, zB, gA, gB, space, { pull = true, push = true }) {
  const n = zA.rows, d = zA.columns;
  let distance = 0, hinge = 0, off = 0;
  for (let i = 0; i < n * d; i += 1) {
    const apart = zA.data[i] - zB.data[i];
    distance += apart ** 2 / (n * d);
    gA.data[i] = pull ? 50 * apart / (n * d) : 0;
    gB.data[i] = -gA.data[i];
  }
  for (const [z, grad] of [[zA, gA], [zB, gB]]) {
    const x = space.a.data;
    for (let j = 0; j < d; j += 1) {
      let mean = 0;
      for (let i = 0; i < n; i += 1) mean += z.data[i * d + j];
      for (let i = 0; i < n; i += 1) x[i * d + j] = z.data[i * d + j] - mean / n;
    }
    multiply(space.a, space.a, space.g, { left: true });
    const cov = space.g.data;
    for (let i = 0; i < d * d; i += 1) cov[i] /= n - 1;
    for (let i = 0; i < d; i += 1) { // from here on cov holds ∂L/∂Cov
      for (let j = 0; j < d; j += 1) {
        const at = i * d + j, value = cov[at];
        if (i === j) {
          const deviation = Math.sqrt(value + 1e-4);
          hinge += Math.max(0, 1 - deviation) / (2 * d);
          cov[at] = push && deviation < 1 ? -25 / (4 * d * deviation) : 0;
        } else {
          off += value ** 2 / d;
          cov[at] = push ? 2 * value / d : 0;
        }
        cov[at] *= 2 / (n - 1);
      }
    }
    multiply(space.a, space.g, grad, { more: true });
  }
  return { loss: (pull ? 25 * distance : 0) + (push ? 25 * hinge + off : 0), invariance: 25 * distance, redundancy: 25 * hinge + off };
}

// SimCLR's NT-Xent (Chen et al., 2020): by its cosine, every embedding has to find its twin among the 2 N − 1 others.
export function simclrLoss(zA, zB, gA, gB, space, { pull = true, push = true, temperature = 0.1 }) {
  const n = zA.rows, d = zA.columns, { s, u } = space;
  const lengths = new Float64Array(2 * n);
  for (let i = 0; i < 2 * n; i += 1) {
    const z = (i < n ? zA : zB).data, from = (i % n) * d;
    let square = 0;
    for (let j = 0; j < d; j += 1) square += z[from + j] ** 2;
    lengths[i] = Math.max(Math.sqrt(square), 1e-12);
    for (let j = 0; j < d; j += 1) u.data[i * d + j] = z[from + j] / lengths[i];
  }
  multiply(u, u, s, { right: true });
  let near = 0, apart = 0;
  for (let i = 0; i < 2 * n; i += 1) { // s turns from cosines into ∂L/∂cosine
    const row = s.data.subarray(2 * n * i, 2 * n * (i + 1)), twin = (i + n) % (2 * n);
    let sum = 0;
    const cosine = row[twin];
    for (let j = 0; j < 2 * n; j += 1) {
      row[j] = j === i ? 0 : Math.exp((row[j] - 1) / temperature);
      sum += row[j];
    }
    near -= cosine / temperature;
    apart += Math.log(sum) + 1 / temperature;
    for (let j = 0; j < 2 * n; j += 1) row[j] *= (push ? 1 : 0) / (sum * temperature * 2 * n);
    if (pull) row[twin] -= 1 / (temperature * 2 * n);
  }
  for (let i = 0; i < 2 * n; i += 1) { // each cosine counts for both of its embeddings
    for (let j = 0; j < i; j += 1) {
      s.data[2 * n * i + j] += s.data[2 * n * j + i];
      s.data[2 * n * j + i] = s.data[2 * n * i + j];
    }
  }
  for (const [grad, other] of [[gA, 0], [gB, n]]) {
    multiply(s.part(other, n), u, grad);
    for (let i = 0; i < n; i += 1) {
      const v = u.data.subarray((other + i) * d, (other + i + 1) * d), g = grad.data.subarray(i * d, (i + 1) * d);
      let along = 0;
      for (let j = 0; j < d; j += 1) along += g[j] * v[j];
      for (let j = 0; j < d; j += 1) g[j] = (g[j] - along * v[j]) / lengths[other + i];
    }
  }
  const invariance = near / (2 * n), redundancy = apart / (2 * n);
  return { loss: (pull ? invariance : 0) + (push ? redundancy : 0), invariance, redundancy };
}
