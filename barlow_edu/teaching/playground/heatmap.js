// A matrix with entries from −1 (blue) through 0 (white) to 1 (red), drawn one pixel an entry on a canvas that the page
// enlarges. Explorer, live panel and playground draw C with this; a film cuts its frames out of a picture.

// 255 colours for the bytes 0 to 254, as RGBA in the byte order of ImageData.
export function colourTable(hex) {
  const table = new Uint8ClampedArray(4 * 256);
  for (let i = 0; i < 255; i += 1) {
    const rgb = parseInt(hex.slice(6 * i, 6 * i + 6), 16);
    table.set([rgb >> 16, (rgb >> 8) & 255, rgb & 255, 255], 4 * i);
  }
  return new Uint32Array(table.buffer);
}

// bytes: 127 for 0, 254 for 1.
export function paintMatrix(canvas, bytes, dims, table) {
  if (canvas.width !== dims) canvas.width = canvas.height = dims;
  const g = canvas.getContext("2d"), image = g.createImageData(dims, dims);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i += 1) pixels[i] = table[bytes[i]];
  g.putImageData(image, 0, 0);
}

// Numbers as the bytes that `paintMatrix` takes.
export function toBytes(values) {
  return Uint8Array.from(values, (v) => Math.round(127 + 127 * Math.min(Math.max(v, -1), 1)));
}

// The colours of the scale from −1 to 1, for a gradient in CSS.
export function gradient(table, direction = "to top") {
  const colours = [0, 32, 64, 95, 127, 159, 190, 222, 254].map((i) => {
    const [r, g, b] = new Uint8Array(table.buffer, 4 * i, 3);
    return `rgb(${r} ${g} ${b})`;
  });
  return `linear-gradient(${direction}, ${colours.join(", ")})`;
}
