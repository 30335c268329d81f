// The dials: their values, what they are at first, and how they stand in the address.

const decades = (from, to, each) => { // two digits each: 0.001, 0.0013, ...
  const count = Math.round(Math.log10(to / from) * each);
  return Array.from({ length: count + 1 }, (_, i) => Number((from * 10 ** (i / each)).toPrecision(2)));
};
const even = (from, to, count) => Array.from({ length: count + 1 }, (_, i) => Number((from + (to - from) * i / count).toFixed(3)));

export const DIALS = {
  lambda: [0, ...decades(0.0001, 10, 10)],
  dim: [4, 8, 16, 32, 64, 128],
  batch: [8, 16, 32, 64, 128, 256],
  rate: decades(0.0001, 0.1, 6),
  crop: even(0.1, 1, 18), // the least share of the area; 1: no crop
  colour: even(0, 1, 20),
  grey: even(0, 1, 20),
  depth: [1, 2, 3],
  width: [4, 8, 16, 32],
  seed: even(0, 9, 9),
  method: ["barlow", "vicreg", "simclr"],
  encoder: ["conv", "mlp"],
  pull: [false, true],
  push: [false, true],
  flip: [false, true],
  norm: [false, true],
};

export const DEFAULTS = {
  method: "barlow", lambda: 0.5, pull: true, push: true, dim: 16, batch: 256, rate: 0.01, encoder: "conv", depth: 3,
  width: 8, norm: true, crop: 0.5, flip: true, colour: 1, grey: 0.5, seed: 0,
};

// "#lambda=0.1&dim=64&lang=de" -> settings that differ from the defaults, and what else is there. What does not fit is
// moved to the nearest value, or ignored.
export function readAddress(hash) {
  const settings = { ...DEFAULTS }, other = {};
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    const values = DIALS[key];
    if (!values) {
      other[key] = text;
    } else if (typeof values[0] === "number") {
      const wanted = Number(text);
      if (Number.isFinite(wanted) && text.trim()) settings[key] = nearestValue(values, wanted);
    } else {
      const value = values.find((one) => String(one) === text);
      if (value !== undefined) settings[key] = value;
    }
  }
  return { settings, other };
}

export function writeAddress(settings, other) {
  const changed = Object.entries(settings).filter(([key, value]) => value !== DEFAULTS[key]);
  const text = new URLSearchParams([...changed, ...Object.entries(other)].map(([k, v]) => [k, String(v)])).toString();
  return text ? `#${text}` : "#";
}

export function nearestValue(values, wanted) {
  return values.reduce((best, value) => (Math.abs(value - wanted) < Math.abs(best - wanted) ? value : best));
}
