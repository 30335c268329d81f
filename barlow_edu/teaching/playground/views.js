// Two views of every image: crop, flip, colour jitter and grey, as numerics/pixels.py has them. Images are bytes
// (size, size, 3); views are float32, normalised, one image a row.

const MEAN = 0.3, DEVIATION = 0.22; // of the pictures, see recipe.py
const GREY = [0.2989, 0.587, 0.114];
const TRIES = 10;

// What one view is to look like. `dials`: crop (least share of the area, 1 = off), flip, colour (0 to 1), grey.
export function drawView(random, dials, size) {
  const drawn = { top: 0, left: 0, height: size, width: size };
  if (dials.crop < 1) drawCrop(random, dials.crop, size, drawn);
  drawn.flip = random.uniform() < dials.flip;
  drawn.grey = random.uniform() < dials.grey;
  drawn.jitter = random.uniform() < 0.8 && dials.colour > 0;
  const spread = (most) => random.uniform(1 - most * dials.colour, 1 + most * dials.colour);
  drawn.factors = [spread(0.4), spread(0.4), spread(0.2), random.uniform(-0.5, 0.5) * dials.colour];
  drawn.order = random.shuffled(4);
  return drawn;
}

function drawCrop(random, least, size, drawn) {
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    const area = random.uniform(least, 1) * size * size, ratio = random.uniform(3 / 4, 4 / 3);
    const width = Math.round(Math.sqrt(area * ratio)), height = Math.round(Math.sqrt(area / ratio));
    if (width > size || height > size) continue;
    Object.assign(drawn, { width, height, top: random.integer(size - height + 1), left: random.integer(size - width + 1) });
    return;
  }
}

// Make the view of one image in `out` (size · size · 3), values in [0, 1].
export function makeView(image, drawn, size, out) {
  cut(image, drawn, size, out);
  if (drawn.jitter) {
    for (const which of drawn.order) JITTER[which](out, drawn.factors[which]);
  }
  if (drawn.grey) {
    for (let i = 0; i < out.length; i += 3) {
      const luma = GREY[0] * out[i] + GREY[1] * out[i + 1] + GREY[2] * out[i + 2];
      out[i] = out[i + 1] = out[i + 2] = luma;
    }
  }
}

export function normalize(from, to) {
  for (let i = 0; i < from.length; i += 1) to[i] = (from[i] - MEAN) / DEVIATION;
}

// Cut the box out and enlarge it to the whole size, by bilinear interpolation.
function cut(image, { top, left, height, width, flip }, size, out) {
  const rows = places(top, height, size), columns = places(left, width, size);
  for (let i = 0, to = 0; i < size; i += 1) {
    const [upper, lower, down] = [rows.low[i], rows.high[i], rows.share[i]];
    for (let j = 0; j < size; j += 1, to += 3) {
      const column = flip ? size - 1 - j : j;
      const near = 3 * columns.low[column], far = 3 * columns.high[column], right = columns.share[column];
      const above = 3 * size * upper, below = 3 * size * lower;
      for (let c = 0; c < 3; c += 1) {
        const first = image[above + near + c] * (1 - right) + image[above + far + c] * right;
        const second = image[below + near + c] * (1 - right) + image[below + far + c] * right;
        out[to + c] = (first * (1 - down) + second * down) / 255;
      }
    }
  }
}

const cache = new Map();

function places(start, length, size) {
  const key = (start * 64 + length) * 64 + size;
  if (!cache.has(key)) {
    const low = new Int32Array(size), high = new Int32Array(size), share = new Float64Array(size);
    for (let i = 0; i < size; i += 1) {
      const at = Math.min(Math.max((i + 0.5) * length / size - 0.5, 0), length - 1);
      low[i] = start + Math.floor(at);
      high[i] = start + Math.min(Math.floor(at) + 1, length - 1);
      share[i] = at - Math.floor(at);
    }
    cache.set(key, { low, high, share });
  }
  return cache.get(key);
}

const clip = (value) => Math.min(Math.max(value, 0), 1);

const JITTER = [
  function brightness(x, factor) {
    for (let i = 0; i < x.length; i += 1) x[i] = clip(x[i] * factor);
  },
  function contrast(x, factor) {
    let mean = 0;
    for (let i = 0; i < x.length; i += 3) mean += GREY[0] * x[i] + GREY[1] * x[i + 1] + GREY[2] * x[i + 2];
    mean = mean / (x.length / 3) * (1 - factor);
    for (let i = 0; i < x.length; i += 1) x[i] = clip(x[i] * factor + mean);
  },
  function saturation(x, factor) {
    for (let i = 0; i < x.length; i += 3) {
      const luma = (GREY[0] * x[i] + GREY[1] * x[i + 1] + GREY[2] * x[i + 2]) * (1 - factor);
      for (let c = 0; c < 3; c += 1) x[i + c] = clip(x[i + c] * factor + luma);
    }
  },
  function hue(x, turns) { // in HSV; a channel is value − chroma · clip(2 − |(n + hue) mod 6 − 2|), n = 5, 3, 1
    for (let i = 0; i < x.length; i += 3) {
      const red = x[i], green = x[i + 1], blue = x[i + 2];
      const value = Math.max(red, green, blue), chroma = value - Math.min(red, green, blue);
      if (chroma === 0) continue;
      let angle = value === red ? (green - blue) / chroma
        : value === green ? 2 + (blue - red) / chroma : 4 + (red - green) / chroma;
      angle += 6 * turns;
      for (let c = 0; c < 3; c += 1) {
        let k = angle + 5 - 2 * c;
        k -= 6 * Math.floor(k / 6);
        x[i + c] = value - chroma * clip(2 - Math.abs(k - 2));
      }
    }
  },
];
