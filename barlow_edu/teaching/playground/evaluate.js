// What features know: neighbours, the rank, a map. Each mirrors a function of the Python package's evaluation.

// Rows of length 1, as they are compared: x (n, d) -> Float32Array (n, d).
export function unitRows(x, n, d) {
  const out = new Float32Array(n * d);
  for (let i = 0; i < n; i += 1) {
    let square = 0;
    for (let j = 0; j < d; j += 1) square += x[i * d + j] ** 2;
    const scale = 1 / Math.max(Math.sqrt(square), 1e-12);
    for (let j = 0; j < d; j += 1) out[i * d + j] = x[i * d + j] * scale;
  }
  return out;
}

// The k rows of a bank with the largest similarity, the most similar first.
export function nearest(similarity, k) {
  const rows = [];
  for (let i = 0; i < similarity.length; i += 1) {
    if (rows.length === k && similarity[i] <= similarity[rows[k - 1]]) continue;
    let at = Math.min(rows.length, k - 1);
    while (at > 0 && similarity[rows[at - 1]] < similarity[i]) {
      rows[at] = rows[at - 1];
      at -= 1;
    }
    rows[at] = i;
  }
  return rows;
}

// Accuracy of a vote of the k nearest, weighted by exp(similarity / 0.1) (Wu et al., 2018). `similarity` has a row of
// `bank` numbers for each query.
export function knnAccuracy(similarity, bank, bankLabels, queryLabels, k = 20, temperature = 0.1) {
  let right = 0;
  queryLabels.forEach((label, i) => {
    const row = similarity.subarray(i * bank, (i + 1) * bank), votes = new Float64Array(10);
    for (const j of nearest(row, k)) votes[bankLabels[j]] += Math.exp((row[j] - 1) / temperature);
    if (votes.indexOf(Math.max(...votes)) === label) right += 1;
  });
  return right / queryLabels.length;
}

// The covariance (times n) of the columns of x (n, d), as Float64Array (d, d).
export function scatter(x, n, d) {
  const mean = new Float64Array(d), out = new Float64Array(d * d), row = new Float64Array(d);
  for (let i = 0; i < n; i += 1) for (let j = 0; j < d; j += 1) mean[j] += x[i * d + j] / n;
  for (let i = 0; i < n; i += 1) {
    for (let j = 0; j < d; j += 1) row[j] = x[i * d + j] - mean[j];
    for (let j = 0; j < d; j += 1) for (let l = 0; l <= j; l += 1) out[j * d + l] += row[j] * row[l];
  }
  for (let j = 0; j < d; j += 1) for (let l = 0; l < j; l += 1) out[l * d + j] = out[j * d + l];
  return { out, mean };
}

// exp(entropy) of the normalised singular values of centred features, from their squares.
export function effectiveRank(squares) {
  const values = Array.from(squares, (s) => Math.sqrt(Math.max(s, 0)));
  const sum = values.reduce((a, b) => a + b, 0);
  if (!(sum > 0)) return 1;
  return Math.exp(-values.reduce((total, v) => (v > 1e-12 * sum ? total + v / sum * Math.log(v / sum) : total), 0));
}

// Singular values of a square matrix C (d, d), the largest first.
export function singularValues(c, d) {
  const square = new Float64Array(d * d);
  for (let i = 0; i < d; i += 1) {
    for (let j = 0; j <= i; j += 1) {
      let sum = 0;
      for (let k = 0; k < d; k += 1) sum += c[i * d + k] * c[j * d + k];
      square[i * d + j] = square[j * d + i] = sum;
    }
  }
  return eigenvalues(square, d).map((value) => Math.sqrt(Math.max(value, 0)));
}

// Eigenvalues of a symmetric matrix (d, d), the largest first: Householder reflections make it tridiagonal, and
// Sturm sequences count how many eigenvalues lie below a number, which bisection then narrows down.
export function eigenvalues(matrix, d) {
  const a = Float64Array.from(matrix), diagonal = new Float64Array(d), beside = new Float64Array(d);
  const p = new Float64Array(d);
  for (let k = 0; k < d - 1; k += 1) {
    let length = 0;
    for (let i = k + 1; i < d; i += 1) length += a[i * d + k] ** 2;
    length = Math.sqrt(length) * (a[(k + 1) * d + k] > 0 ? -1 : 1);
    diagonal[k] = a[k * d + k];
    beside[k + 1] = length;
    const first = a[(k + 1) * d + k] - length, norm = -length * first; // v = (column k below k) − length e; |v|² / 2
    if (!(norm > 0)) continue;
    const v = (i) => (i === k + 1 ? first : a[i * d + k]);
    let along = 0;
    for (let i = k + 1; i < d; i += 1) {
      let sum = 0;
      for (let j = k + 1; j < d; j += 1) sum += a[i * d + j] * v(j);
      p[i] = sum / norm;
      along += p[i] * v(i);
    }
    along /= 2 * norm;
    for (let i = k + 1; i < d; i += 1) p[i] -= along * v(i);
    for (let i = k + 1; i < d; i += 1) {
      const vi = v(i), pi = p[i];
      for (let j = k + 1; j < d; j += 1) a[i * d + j] -= vi * p[j] + pi * v(j);
    }
  }
  diagonal[d - 1] = a[d * d - 1];
  return bisected(diagonal, beside, d);
}

function bisected(diagonal, beside, d) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < d; i += 1) {
    const radius = Math.abs(beside[i]) + Math.abs(beside[i + 1] || 0);
    low = Math.min(low, diagonal[i] - radius);
    high = Math.max(high, diagonal[i] + radius);
  }
  const tiny = 1e-14 * Math.max(Math.abs(low), Math.abs(high), 1e-300);
  const below = (x) => {
    let count = 0, q = 1;
    for (let i = 0; i < d; i += 1) {
      q = diagonal[i] - x - (i ? beside[i] ** 2 / (q || tiny) : 0);
      if (q < 0) count += 1;
    }
    return count;
  };
  return Float64Array.from({ length: d }, (_, k) => { // the k-th largest
    let from = low, to = high;
    for (let turn = 0; turn < 45; turn += 1) {
      const middle = (from + to) / 2;
      if (below(middle) > d - 1 - k) to = middle;
      else from = middle;
    }
    return (from + to) / 2;
  });
}

// The two directions in which features vary most, by power iteration from where they were last: so the map turns
// slowly instead of jumping. `directions` (2, d) is updated.
export function principalDirections(covariance, d, directions, turns = 30) {
  for (let turn = 0; turn < turns; turn += 1) {
    for (const k of [0, 1]) {
      const v = directions.subarray(k * d, (k + 1) * d), next = new Float64Array(d);
      for (let i = 0; i < d; i += 1) for (let j = 0; j < d; j += 1) next[i] += covariance[i * d + j] * v[j];
      if (k) {
        let along = 0;
        for (let i = 0; i < d; i += 1) along += next[i] * directions[i];
        for (let i = 0; i < d; i += 1) next[i] -= along * directions[i];
      }
      const length = Math.hypot(...next);
      if (length > 1e-9) v.set(next.map((value) => value / length));
    }
  }
  return directions;
}
