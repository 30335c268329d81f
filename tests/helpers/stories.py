"""The playground's guided stories, trained to their end.

A seed takes more than a minute. What a seed brings depends on the code and the pictures alone, so some are recorded
beside this file, with the digest of both: ``python tests/helpers/stories.py`` records them again. Without a record of
the present code they are trained.
"""

import base64
import functools
import hashlib
import json
import zlib
from pathlib import Path

from javascript import run

from barlow_edu.teaching import playground

RECORD, SEEDS = Path(__file__).with_name("stories.json"), (1, 2)
TRAIN = """
  matmul.startMatmul();
  const data = await images.unpackImages(given.images), told = {};
  for (const { key, settings: dials, steps } of given.stories) {
    const it = new trainer.Trainer(data, { ...dials, seed: given.seed }, 1000), d = it.settings.dim;
    const begin = it.judge(1).accuracy, far = () => trainer.distanceToIdentity(it.loss.c.data, d);
    it.drawTwins();
    it.useTwins(false);
    const first = far();
    let least = Infinity, diagonal = 0, distance = 0;
    for (let i = 0; i < steps; i += 1) {
      least = Math.min(least, it.train().loss);
      if (i < steps - 10) continue;
      distance += far() / 10;
      for (let j = 0; j < d; j += 1) diagonal += it.loss.c.data[j * (d + 1)] / d / 10;
    }
    const { accuracy, rankZ } = it.judge(1);
    told[key] = { begin, accuracy, rankZ, first, distance, diagonal, least, floor: it.floor,
      singular: Array.from(evaluate.singularValues(it.loss.c.data, d)) };
  }
  return told;"""


@functools.cache
def stories():
    """The stories as the page has them."""
    return run("return stories.STORIES;", module="page")


@functools.cache
def inputs():
    """The pictures, packed, and the digest of all that decides how a story ends."""
    packed = playground.images()
    text = json.dumps([playground.bundle("worker"), TRAIN, stories()])
    digest = hashlib.sha256(text.encode() + zlib.decompress(packed)).hexdigest()
    return base64.b64encode(packed).decode(), digest


def train(seed):
    """What every story brings with this seed: name -> accuracies, ranks, distances to the identity."""
    return run(TRAIN, {"seed": seed, "stories": stories(), "images": inputs()[0]})


def outcome(seed, record=RECORD):
    """The recorded outcome of ``train`` where there is one of this code, else a new one."""
    recorded = json.loads(record.read_text(encoding="utf-8"))
    if recorded["digest"] == inputs()[1] and str(seed) in recorded:
        return recorded[str(seed)]
    return train(seed)


if __name__ == "__main__":
    told = {"digest": inputs()[1], **{str(seed): train(seed) for seed in SEEDS}}
    RECORD.write_text(json.dumps(told) + "\n", encoding="utf-8")
