// Two digits: what each model draws from its codes of them, and from the codes swapped.
import { ask } from "./ask.js";
import { element, paint, picture, say, svg } from "./dom.js";
import { MODELS, drawInto, shared, state } from "./state.js";

const pair = { pictures: {}, codes: {}, changes: {}, images: {} };

const changed = (a, b) => a.reduce((count, value, i) => count + (value !== b[i]), 0);

export function pairSection() {
  const rows = MODELS.map((model) => {
    pair.pictures[model] = [1, 2].map((n) => picture(`Picture ${n} of ${model}`));
    pair.codes[model] = [1, 2].map(() => svg("svg", { class: "ex-code", role: "img" }));
    pair.changes[model] = element("td", { className: "ex-changes" }, "–");
    const cells = [0, 1].map((i) =>
      element("td", {}, pair.pictures[model][i], pair.codes[model][i]),
    );
    return element(
      "tr",
      { data: { model } },
      element("th", { scope: "row" }, model),
      ...cells,
      pair.changes[model],
    );
  });
  pair.originals = [1, 2].map((n) => picture(`Digit ${n}`));
  pair.head = [element("th", { scope: "col" }), element("th", { scope: "col" })];
  const heads = [
    element("td"),
    ...pair.head,
    element("th", { scope: "col" }, "pixels that the swap changed"),
  ];
  const original = element(
    "tr",
    {},
    element("th", { scope: "row" }, "digit"),
    ...pair.originals.map((canvas) => element("td", {}, canvas)),
    element("td"),
  );
  return element(
    "table",
    { className: "ex-pair" },
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, original, ...rows),
  );
}

function labelPair() {
  pair.head.forEach((head, i) => {
    head.textContent = `noise ${i + 1}, code of digit ${state.swapped ? 2 - i : i + 1}`;
  });
  document.getElementById("ex-swap").setAttribute("aria-pressed", state.swapped);
}

// Bars of a code's numbers, with the posterior's standard deviations.
function drawCode(chart, { mu, logvar }, label) {
  const width = 4;
  const top = 4;
  const y = (value) => 20 - 5 * Math.max(-top, Math.min(top, value));
  const bars = Array.from(mu, (value, k) => {
    const [from, to] = [y(Math.max(value, 0)), y(Math.min(value, 0))];
    return svg("rect", {
      x: k * width,
      width: width - 1,
      y: from,
      height: Math.max(to - from, 0.5),
    });
  });
  const spread = Array.from(mu, (value, k) => {
    const sigma = Math.exp(logvar[k] / 2);
    const x = k * width + (width - 1) / 2;
    return svg("line", { x1: x, x2: x, y1: y(value - sigma), y2: y(value + sigma) });
  });
  chart.setAttribute("viewBox", `0 0 ${mu.length * width} 40`);
  chart.setAttribute("aria-label", label);
  chart.replaceChildren(...bars, ...spread);
}

export async function encodePair() {
  for (const model of MODELS)
    state.codes[model] = await ask("encode", { model, images: state.chosen });
  pair.originals.forEach((canvas, i) => paint(canvas, state.chosen[i]));
}

export async function updatePair() {
  labelPair();
  const order = state.swapped ? [1, 0] : [0, 1];
  const canvases = [];
  const items = [];
  for (const model of MODELS)
    order.forEach((digit, place) => {
      const code = state.codes[model][digit];
      canvases.push(pair.pictures[model][place]);
      items.push({ model, code: code.mu, ...shared(2 * state.seed + place) });
      const label = `${model}'s code of digit ${digit + 1}: ${code.mu.length} numbers`;
      drawCode(pair.codes[model][place], code, label);
    });
  const images = await drawInto("pair", canvases, items);
  if (images) compareWithBefore(images);
}

function compareWithBefore(images) {
  const spoken = [];
  MODELS.forEach((model, m) => {
    const mine = [images[2 * m], images[2 * m + 1]];
    const before = pair.images[model];
    pair.images[model] = { swapped: state.swapped, noise: noiseKey(), mine };
    const comparable =
      before && before.swapped !== state.swapped && before.noise === pair.images[model].noise;
    if (!comparable) return (pair.changes[model].textContent = "–");
    const counts = mine.map((image, i) => changed(image, before.mine[i]));
    pair.changes[model].textContent = `${counts[0]} and ${counts[1]}`;
    spoken.push(`${model}: ${counts[0]} and ${counts[1]}`);
  });
  if (spoken.length) say(`Pixels that the swap changed. ${spoken.join("; ")}.`);
}

// What must be equal for two pictures to differ only by the swap.
function noiseKey() {
  const images = state.chosen.map((image) => image.join("")).join();
  return [state.temperature, state.seed, images].join();
}
