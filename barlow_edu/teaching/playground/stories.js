// Six guided stories: each sets the dials, asks for a prediction, runs, and explains. Their words are in words/.
// `answer` is the number of the right choice, `steps` how long it runs.

export const STORIES = [
  { key: "works", settings: {}, steps: 300, answer: 1 },
  { key: "collapse", settings: { lambda: 0, batch: 128, rate: 0.022 }, steps: 400, answer: 0 },
  { key: "colour", settings: { grey: 0, colour: 0.1, batch: 128 }, steps: 150, answer: 2 },
  { key: "samples", settings: { batch: 16, dim: 64 }, steps: 300, answer: 1 },
  { key: "strong", settings: { lambda: 10, batch: 128 }, steps: 150, answer: 0 },
  { key: "crop", settings: { crop: 1, batch: 128 }, steps: 150, answer: 2 },
];
