// What is set on the page, and how it is drawn.
import { ask } from "./ask.js";
import { paint } from "./dom.js";
import { uniforms } from "./noise.js";

export const MODELS = Object.keys(explorerData.files);

export const state = {
  digits: [], // all that came with the page: {image, label}
  chosen: [null, null], // the images of digit 1 and digit 2
  loaded: false, // whether the models are there
  codes: {}, // of each model, the posteriors of the chosen two
  swapped: false,
  temperature: 1,
  seed: 1,
  pause: 0,
};
export const about = {}; // what each model's file says of it

export const shared = (seed) => ({ uniform: uniforms(seed), temperature: state.temperature });

// Draw items into canvases of the same order; the images, or null if a newer draw took over.
export function drawInto(key, canvases, items) {
  const onpart = ({ item, row, pixels }) => paint(canvases[item], pixels, row);
  return ask("draw", { key, items, pause: state.pause }, onpart);
}
