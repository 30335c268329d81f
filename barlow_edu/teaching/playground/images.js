// The pictures: garments (Fashion-MNIST) on coloured cards. What is stored of each is how much of a pixel is garment,
// and its colours; the card is painted here in the same integers as in storage/garments.py.

export async function unpackImages(base64) {
  const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const [size, train, test] = new Uint16Array(raw.buffer, 0, 3), n = train + test, area = size * size;
  let at = 6;
  const take = (length) => raw.subarray(at, at += length);
  const labels = take(n), colours = take(10 * n), garment = take(n * area), pixels = new Uint8Array(3 * n * area);
  for (let i = 0; i < n; i += 1) {
    const own = colours.subarray(10 * i, 10 * i + 10);
    paint(garment.subarray(i * area, (i + 1) * area), own, size, pixels.subarray(3 * i * area, 3 * (i + 1) * area));
  }
  const part = (from, to) => ({ labels: labels.subarray(from, to), pixels: pixels.subarray(3 * from * area, 3 * to * area) });
  return { size, train: part(0, train), test: part(train, n) };
}

// own: tint (3), background (3), and the background's brightness at the four corners in per cent.
function paint(garment, own, size, out) {
  const far = size - 1;
  for (let i = 0; i < size; i += 1) {
    for (let j = 0; j < size; j += 1) {
      const shade = own[6] * (far - i) * (far - j) + own[7] * (far - i) * j + own[8] * i * (far - j) + own[9] * i * j;
      const alpha = garment[i * size + j];
      for (let c = 0; c < 3; c += 1) {
        const dim = Math.floor(own[3 + c] * shade / (100 * far * far));
        out[3 * (i * size + j) + c] = Math.floor((dim * (255 - alpha) + own[c] * alpha + 127) / 255);
      }
    }
  }
}
