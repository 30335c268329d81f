// The worker: it trains and judges, so that the page stays free to draw. `serve` answers the messages of the page.

import { singularValues } from "./evaluate.js";
import { unpackImages } from "./images.js";
import { startMatmul } from "./matmul.js";
import { distanceToIdentity, Trainer } from "./trainer.js";

const FRAME = 20; // milliseconds of training between two pictures, or one step where that takes longer
const BREATH = 1000; // milliseconds between two judgements, and more where judging takes long
const TWINS = 8, NEIGHBOURS = 8, BANK = 1000;

export function serve(scope) {
  let trainer = null, playing = false, speed = Infinity, unseen = 0, judged = 0, cost = 0, next = 0, rate = 0;
  const now = () => performance.now();
  const post = (message) => scope.postMessage(message);
  const channel = new MessageChannel(); // a timer would wait four milliseconds each time
  channel.port1.onmessage = () => turn();

  const answer = {
    async start({ images, settings }) {
      const backend = startMatmul(), data = await unpackImages(images);
      trainer = new Trainer(data, settings, BANK);
      const { size, train, test } = data;
      post({
        kind: "ready", backend, size, bank: BANK, pixels: train.pixels.slice(0, 3 * BANK * size * size),
        labels: train.labels.slice(0, BANK), queries: test.pixels, queryLabels: test.labels,
        ...trainer.judgePixels(NEIGHBOURS),
      });
      begin();
    },
    set({ settings, afresh }) {
      const restarted = trainer.set(settings);
      if (afresh && !restarted) trainer.reset();
      if (afresh || restarted) begin();
      else if (!playing) look();
    },
    play({ on }) {
      if (on === playing) return;
      playing = on;
      unseen = 0;
      if (playing) turn();
      else judge();
    },
    step() {
      advance();
      judge();
    },
    reset() {
      trainer.reset();
      begin();
    },
    speed({ value }) { speed = value; },
    seen() { unseen = Math.max(0, unseen - 1); },
  };
  scope.onmessage = ({ data }) => answer[data.kind](data);

  function begin() { // a network that has learned nothing yet
    judge(true);
    look();
  }

  function look() { // at the present settings, without learning
    trainer.drawTwins();
    trainer.useTwins(false);
    publish();
  }

  function judge(untrained = false) {
    const start = now(), { features } = trainer.network;
    post({ kind: "judged", untrained, features, ...trainer.judge(NEIGHBOURS) });
    judged = now();
    cost = judged - start;
  }

  function advance() {
    trainer.train();
    publish();
  }

  // Train for one frame, publish what there is to see, and hear what the page says before the next.
  function turn() {
    if (!playing) return;
    const start = now();
    if (start < next) {
      setTimeout(turn, Math.min(next - start, 50));
      return;
    }
    let steps = 0;
    do {
      trainer.train();
      steps += 1;
    } while (now() - start < FRAME && speed === Infinity);
    next = speed === Infinity ? 0 : Math.max(next, start - 100) + 1000 / speed;
    const each = (now() - start) / steps;
    rate = rate ? 0.9 * rate + 0.1 * each : each;
    if (unseen < 3) publish();
    if (now() - judged > Math.max(BREATH, 5 * cost)) judge();
    channel.port2.postMessage(0);
  }

  function publish() {
    const { settings, terms, loss, step, images } = trainer, d = settings.dim, c = Float32Array.from(loss.c.data);
    let diagonal = 0;
    for (let i = 0; i < d; i += 1) diagonal += c[i * (d + 1)] / d;
    unseen += 1;
    post({
      kind: "frame", step, ...terms, diagonal, c, distance: distanceToIdentity(c, d), floor: trainer.floor,
      singular: singularValues(c, d), twins: twins(), size: images.size, milliseconds: rate, lambda: settings.lambda,
    });
  }

  // The first twins of the present batch as they were seen, bytes (2, TWINS, size, size, 3).
  function twins() {
    const { images, space, area, settings } = trainer, count = Math.min(TWINS, settings.batch);
    const out = new Uint8ClampedArray(2 * TWINS * images.size ** 2 * 3), input = space.values[0].data;
    for (let view = 0; view < 2; view += 1) {
      for (let i = 0; i < count * area; i += 1) {
        out[view * TWINS * area + i] = 255 * (input[view * settings.batch * area + i] * 0.22 + 0.3);
      }
    }
    return out;
  }
}
