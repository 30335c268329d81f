// Random numbers that are the same in every browser: sfc32, a small generator by Chris Doty-Humphrey that passes the
// usual tests. Only sums, shifts and exact conversions; no sine or logarithm, whose last digit browsers disagree on.

export class Random {
  constructor(seed) {
    this.state = Uint32Array.of(seed, 0x9e3779b9, seed ^ 0x85ebca6b, 1);
    for (let i = 0; i < 15; i += 1) this.bits();
  }

  bits() { // 32 of them
    const s = this.state;
    const sum = (s[0] + s[1] + s[3]) >>> 0;
    s[3] += 1;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + sum;
    return sum;
  }

  uniform(low = 0, high = 1) {
    return low + (high - low) * (this.bits() / 4294967296);
  }

  integer(n) { // 0 to n - 1
    return Math.floor(this.uniform() * n);
  }

  shuffled(n) { // 0 to n - 1 in random order
    const order = Int32Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i -= 1) {
      const j = this.integer(i + 1);
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }
}
