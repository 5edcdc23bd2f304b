// A walk through the code: from digit 1 to digit 2, and along single dimensions.
import { button, element, picture, select, slider } from "./dom.js";
import { summary } from "./posteriors.js";
import { MODELS, drawInto, shared, state } from "./state.js";

const SLIDERS = 8; // dimensions that the walk offers
const walk = { model: MODELS[0], offsets: new Map(), along: 0 };

const mix = (a, b, t) => a.map((value, k) => (1 - t) * value + t * b[k]);

export function walkSection() {
  walk.canvas = picture("The picture of the code that the sliders set");
  walk.canvas.classList.add("ex-large");
  walk.along = slider(
    "From digit 1 (0) to digit 2 (1)",
    { min: 0, max: 1, step: 0.05, value: 0 },
    updateWalk,
  );
  walk.sliders = element("div", { className: "ex-sliders" });
  const model = select("Model", MODELS, (name) => {
    walk.model = name;
    buildSliders();
  });
  const reset = button("Back to digit 1", () => {
    resetWalk();
    updateWalk();
  });
  const settings = element("div", {}, model, " ", reset, walk.along.label, walk.sliders);
  return element("div", { className: "ex-walk" }, walk.canvas, settings);
}

// Sliders for the dimensions that tell most about the image, most informative first.
export async function buildSliders() {
  const { order, nats, scale } = await summary(walk.model);
  walk.offsets.clear();
  const labels = order.slice(0, SLIDERS).map((k) => {
    const limit = (3 * scale[k]).toFixed(2);
    const text = `Dimension ${k + 1} (${nats[k].toFixed(2)} nats)`;
    return slider(text, { min: -limit, max: limit, step: limit / 50, value: 0 }, (value) => {
      walk.offsets.set(k, value);
      updateWalk();
    }).label;
  });
  walk.sliders.replaceChildren(...labels);
  await updateWalk();
}

export function resetWalk() {
  walk.offsets.clear();
  for (const input of document.querySelectorAll(".ex-walk input")) input.value = 0;
  for (const output of document.querySelectorAll(".ex-walk output")) output.textContent = 0;
}

export function updateWalk() {
  const [one, two] = state.codes[walk.model];
  const code = mix(one.mu, two.mu, Number(walk.along.input.value));
  for (const [k, offset] of walk.offsets) code[k] += offset;
  return drawInto("walk", [walk.canvas], [{ model: walk.model, code, ...shared(2 * state.seed) }]);
}
