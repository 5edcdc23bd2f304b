// The explorer's page: what a reader sets, and what the worker then draws.

const MODELS = ["MAE", "VLAE", "ResNet VAE"];
const HERE = new URL(".", document.currentScript.src);
const SIZE = 28;
const SLIDERS = 8; // dimensions that the walk offers
const SAMPLES = 6;

// ---- the worker, and the files beside this script

const worker = new Worker(URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" })));
const waiting = new Map();
let asked = 0;

worker.onmessage = ({ data: { id, value, part, error } }) => {
  const { resolve, reject, onpart } = waiting.get(id);
  if (part) return onpart?.(part);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(value);
};

function ask(job, rest = {}, onpart) {
  const id = ++asked;
  worker.postMessage({ id, job, ...rest });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject, onpart }));
}

// A script works where a page from a disk may not fetch a file.
function script(name) {
  return new Promise((resolve, reject) => {
    const onerror = () => reject(new Error(`${name} could not be loaded`));
    document.head.append(
      Object.assign(document.createElement("script"), {
        src: new URL(name, HERE).href,
        onload: resolve,
        onerror,
      }),
    );
  });
}

// ---- small helpers

function element(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function picture(label) {
  const canvas = element("canvas", { width: SIZE, height: SIZE, className: "ex-picture" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

function paint(canvas, pixels, row = 0) {
  const height = pixels.length / SIZE;
  const image = new ImageData(SIZE, height);
  pixels.forEach((value, i) => image.data.set(value ? [20, 20, 30, 255] : [255, 255, 255, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, row);
}

// mulberry32: numbers that are the same for the same seed.
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function uniforms(seed) {
  const next = random(seed);
  return Float32Array.from({ length: SIZE * SIZE }, next);
}

function normals(seed, count) {
  const next = random(seed);
  const one = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return Float32Array.from({ length: count }, one);
}

const unpack = (text) =>
  Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).reduce(
    (bits, byte, i) => {
      for (let b = 0; b < 8; b++) bits[8 * i + b] = (byte >> (7 - b)) & 1;
      return bits;
    },
    new Uint8Array(SIZE * SIZE),
  );

const changed = (a, b) => a.reduce((count, value, i) => count + (value !== b[i]), 0);
const mix = (a, b, t) => a.map((value, k) => (1 - t) * value + t * b[k]);

// ---- what is set

const state = {
  digits: [], // all that came with the page: {image, label}
  chosen: [null, null], // the images of digit 1 and digit 2
  codes: {}, // of each model, the posteriors of the chosen two
  swapped: false,
  temperature: 1,
  seed: 1,
  pause: 0,
};

const shared = (seed) => ({ uniform: uniforms(seed), temperature: state.temperature });

// Draw items into canvases of the same order; the images, or null if a newer draw took over.
function drawInto(key, canvases, items) {
  const onpart = ({ item, row, pixels }) => paint(canvases[item], pixels, row);
  return ask("draw", { key, items, pause: state.pause }, onpart);
}

function say(text) {
  document.getElementById("explorer-status").textContent = text;
}

// ---- two digits

const pair = { pictures: {}, codes: {}, changes: {}, images: {} };

function pairSection() {
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
  const heads = [element("td"), ...pair.head, element("th", { scope: "col" }, "pixels that the swap changed")];
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
    return svg("rect", { x: k * width, width: width - 1, y: from, height: Math.max(to - from, 0.5) });
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

async function encodePair() {
  for (const model of MODELS)
    state.codes[model] = await ask("encode", { model, images: state.chosen });
  pair.originals.forEach((canvas, i) => paint(canvas, state.chosen[i]));
}

async function updatePair() {
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

// ---- choosing and drawing digits

function picker(place) {
  const options = state.digits.slice(0, 20).map(({ image, label }, i) => {
    const input = element("input", { type: "radio", name: `ex-digit-${place}`, value: i });
    input.setAttribute("aria-label", `a ${label}, number ${i + 1}`);
    input.addEventListener("change", () => choose(place, image, `Digit ${place + 1} is a ${label}.`));
    const canvas = picture("");
    canvas.setAttribute("aria-hidden", "true");
    paint(canvas, image);
    return element("label", { className: "ex-option" }, input, canvas);
  });
  options[place === 0 ? 14 : 6].firstChild.checked = true;
  return element(
    "fieldset",
    { className: "ex-picker" },
    element("legend", {}, `Digit ${place + 1}`),
    ...options,
  );
}

async function choose(place, image, text) {
  state.chosen[place] = image;
  say(text);
  await encodePair();
  resetWalk();
  await Promise.all([updatePair(), updateWalk()]);
}

function pad() {
  const image = new Uint8Array(SIZE * SIZE);
  const cursor = { row: 14, column: 14 };
  const canvas = picture("Drawing area: arrow keys move, space draws or erases");
  canvas.classList.add("ex-pad");
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const show = () => {
    paint(canvas, image);
    if (document.activeElement !== canvas || pointer) return;
    const context = canvas.getContext("2d");
    context.fillStyle = "#c2410c";
    context.fillRect(cursor.column, cursor.row, 1, 1);
  };
  let pointer = false;
  const dab = (row, column) => {
    for (const [r, c] of [[0, 0], [0, 1], [1, 0], [1, 1]])
      if (row + r < SIZE && column + c < SIZE) image[(row + r) * SIZE + column + c] = 1;
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    const scale = SIZE / box.width;
    dab(
      Math.max(0, Math.floor((event.clientY - box.top) * scale - 0.5)),
      Math.max(0, Math.floor((event.clientX - box.left) * scale - 0.5)),
    );
    show();
  };
  canvas.addEventListener("pointerdown", (event) => {
    pointer = true;
    canvas.setPointerCapture(event.pointerId);
    at(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (pointer) for (const each of event.getCoalescedEvents?.() ?? [event]) at(each);
  });
  for (const name of ["pointerup", "pointercancel"])
    canvas.addEventListener(name, () => (pointer = false));
  for (const name of ["focus", "blur"]) canvas.addEventListener(name, show);
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const [dr, dc] = move[event.key] ?? [0, 0];
    if (event.key === " ") image[cursor.row * SIZE + cursor.column] ^= 1;
    else if (!move[event.key]) return;
    event.preventDefault();
    cursor.row = Math.max(0, Math.min(SIZE - 1, cursor.row + dr));
    cursor.column = Math.max(0, Math.min(SIZE - 1, cursor.column + dc));
    show();
  });
  show();
  const use = button("Use the drawing as digit 1", () => {
    for (const input of document.querySelectorAll("[name=ex-digit-0]")) input.checked = false;
    choose(0, centred(image), "Digit 1 is your drawing.");
  });
  const clear = button("Clear", () => {
    image.fill(0);
    show();
  });
  return element("fieldset", { className: "ex-drawing" }, element("legend", {}, "Or draw a digit"), canvas, element("div", {}, use, " ", clear));
}

// MNIST's digits have their centre of mass in the middle of the image.
function centred(image) {
  let [mass, rows, columns] = [0, 0, 0];
  image.forEach((value, i) => {
    mass += value;
    rows += value * Math.floor(i / SIZE);
    columns += value * (i % SIZE);
  });
  if (!mass) return image.slice();
  const [down, right] = [rows, columns].map((sum) => Math.round(SIZE / 2 - 0.5 - sum / mass));
  const moved = new Uint8Array(image.length);
  image.forEach((value, i) => {
    const [r, c] = [Math.floor(i / SIZE) + down, (i % SIZE) + right];
    if (value && r >= 0 && r < SIZE && c >= 0 && c < SIZE) moved[r * SIZE + c] = 1;
  });
  return moved;
}

function button(text, onclick, properties = {}) {
  return element("button", { type: "button", className: "ex-button", onclick, ...properties }, text);
}

function slider(text, { min, max, step, value }, oninput) {
  const shown = element("output", {}, value);
  const input = element("input", { type: "range", min, max, step, value });
  input.addEventListener("input", () => {
    shown.textContent = Number(input.value).toFixed(2);
    oninput(Number(input.value));
  });
  const label = element("label", { className: "ex-slider" }, element("span", {}, text), input, shown);
  return { label, input, shown };
}

function controls() {
  const temperature = slider(
    "Temperature of the pixels: 0 is greedy, 1 samples",
    { min: 0, max: 1, step: 0.05, value: state.temperature },
    (value) => {
      state.temperature = value;
      updatePair();
      updateWalk();
    },
  );
  const swap = button(
    "Swap the codes",
    () => {
      state.swapped = !state.swapped;
      updatePair();
    },
    { id: "ex-swap" },
  );
  const noise = button("New noise", () => {
    state.seed += 1;
    updatePair();
    updateWalk();
  });
  const slow = element("input", { type: "checkbox" });
  slow.addEventListener("change", () => {
    state.pause = slow.checked ? 60 : 0;
    updatePair();
  });
  return element("div", { className: "ex-controls" }, swap, noise, element("label", {}, slow, " Draw slowly"), temperature.label);
}

// ---- a walk through the code

const walk = { model: MODELS[0], offsets: new Map(), along: 0 };

function walkSection() {
  walk.canvas = picture("The picture of the code that the sliders set");
  walk.canvas.classList.add("ex-large");
  walk.along = slider("From digit 1 (0) to digit 2 (1)", { min: 0, max: 1, step: 0.05, value: 0 }, updateWalk);
  walk.sliders = element("div", { className: "ex-sliders" });
  const model = select("Model", (name) => {
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

function select(text, onchange) {
  const box = element("select", {}, ...MODELS.map((name) => element("option", {}, name)));
  box.addEventListener("change", () => onchange(box.value));
  return element("label", {}, `${text} `, box);
}

// Sliders for the dimensions that tell most about the image, most informative first.
async function buildSliders() {
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

function resetWalk() {
  walk.offsets.clear();
  for (const input of document.querySelectorAll(".ex-walk input")) input.value = 0;
  for (const output of document.querySelectorAll(".ex-walk output")) output.textContent = 0;
}

function updateWalk() {
  const [one, two] = state.codes[walk.model];
  const code = mix(one.mu, two.mu, Number(walk.along.input.value));
  for (const [k, offset] of walk.offsets) code[k] += offset;
  return drawInto("walk", [walk.canvas], [{ model: walk.model, code, ...shared(2 * state.seed) }]);
}

// ---- samples from the prior

function sampleSection() {
  const canvases = Object.fromEntries(
    MODELS.map((model) => [
      model,
      Array.from({ length: SAMPLES }, (_, i) => picture(`Sample ${i + 1} of ${model}`)),
    ]),
  );
  let seed = 0;
  const again = async () => {
    seed += 1;
    const items = [];
    for (const model of MODELS)
      for (let i = 0; i < SAMPLES; i++) {
        const noise = normals(1000 * seed + i, about[model].latent);
        const code = await ask("prior", { model, noise });
        items.push({ model, code, uniform: uniforms(500 * seed + i), temperature: 1 });
      }
    await drawInto("samples", MODELS.flatMap((model) => canvases[model]), items);
    say(`${SAMPLES} new samples of each model.`);
  };
  const rows = MODELS.map((model) =>
    element("div", { className: "ex-samples" }, element("strong", {}, model), ...canvases[model]),
  );
  return element("div", {}, button("Draw samples", again), ...rows);
}

// ---- a map of the posteriors

const summaries = {};

// The posteriors of all digits under a model, and what they say of each dimension. The information
// of dimension k in nats is that of a Gaussian channel, log(1 + Var mu_k / E sigma_k^2) / 2.
function summary(model) {
  summaries[model] ??= (async () => {
    const codes = await ask("encode", { model, images: state.digits.map(({ image }) => image) });
    const latent = codes[0].mu.length;
    const column = (f) => (k) => codes.reduce((sum, code) => sum + f(code, k), 0) / codes.length;
    const dimensions = Array.from({ length: latent }, (_, k) => k);
    const means = dimensions.map(column(({ mu }, k) => mu[k]));
    const variances = dimensions.map(column(({ mu }, k) => (mu[k] - means[k]) ** 2));
    const noise = dimensions.map(column(({ logvar }, k) => Math.exp(logvar[k])));
    const nats = variances.map((value, k) => 0.5 * Math.log(1 + value / noise[k]));
    const order = dimensions.slice().sort((a, b) => nats[b] - nats[a]);
    const scale = variances.map((value, k) => Math.sqrt(value + noise[k]));
    return { codes, means, nats, order, scale };
  })();
  return summaries[model];
}

// The two principal directions of the means, by power iteration.
function principal({ codes, means }) {
  const found = [];
  for (let axis = 0; axis < 2; axis++) {
    let direction = normals(axis + 1, means.length);
    for (let round = 0; round < 60; round++) {
      const next = new Float32Array(means.length);
      for (const { mu } of codes) {
        const along = mu.reduce((sum, value, k) => sum + (value - means[k]) * direction[k], 0);
        mu.forEach((value, k) => (next[k] += along * (value - means[k])));
      }
      for (const other of found) {
        const along = next.reduce((sum, value, k) => sum + value * other[k], 0);
        other.forEach((value, k) => (next[k] -= along * value));
      }
      const length = Math.hypot(...next);
      direction = next.map((value) => value / length);
    }
    found.push(direction);
  }
  return found;
}

function project({ mu, logvar }, means, [a, b]) {
  const along = (axis) => mu.reduce((sum, value, k) => sum + (value - means[k]) * axis[k], 0);
  const spread = (p, q) => logvar.reduce((sum, value, k) => sum + p[k] * q[k] * Math.exp(value), 0);
  const [aa, ab, bb] = [spread(a, a), spread(a, b), spread(b, b)];
  const [mean, half] = [(aa + bb) / 2, Math.hypot((aa - bb) / 2, ab)];
  return {
    x: along(a),
    y: along(b),
    long: Math.sqrt(mean + half),
    short: Math.sqrt(Math.max(mean - half, 0)),
    angle: (Math.atan2(2 * ab, aa - bb) / 2) * (180 / Math.PI),
  };
}

const chart = { points: [], at: 0 };

function mapSection() {
  chart.svg = svg("svg", {
    class: "ex-map",
    tabindex: 0,
    role: "application",
    "aria-label": "Map of the posteriors: arrow keys move to a neighbouring digit, Enter chooses it",
  });
  chart.svg.addEventListener("click", (event) => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      chart.svg.getScreenCTM().inverse(),
    );
    pick(nearest(x, y, () => true));
  });
  chart.svg.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") pick(chart.at);
    else if (!step(event.key)) return;
    event.preventDefault();
  });
  return element("div", {}, select("Model", drawMap), chart.svg);
}

async function drawMap(model) {
  const told = await summary(model);
  const axes = principal(told);
  chart.points = told.codes.map((code) => project(code, told.means, axes));
  const far = Math.max(...chart.points.map(({ x, y, long }) => Math.max(Math.abs(x), Math.abs(y)) + long));
  chart.svg.setAttribute("viewBox", `${-far} ${-far} ${2 * far} ${2 * far}`);
  const ellipses = chart.points.map(({ x, y, long, short, angle }, i) =>
    svg("ellipse", {
      rx: long,
      ry: short,
      transform: `translate(${x} ${y}) rotate(${angle})`,
      class: `ex-digit-${state.digits[i].label}`,
    }),
  );
  const names = chart.points.map(({ x, y }, i) => {
    const label = state.digits[i].label;
    const text = svg("text", { x, y, "font-size": far / 14, class: `ex-digit-${label}` });
    text.textContent = label;
    return text;
  });
  chart.mark = svg("circle", { r: far / 18, class: "ex-mark" });
  chart.svg.replaceChildren(...ellipses, ...names, chart.mark);
  mark(chart.at);
}

function nearest(x, y, allowed) {
  let [best, least] = [-1, Infinity];
  chart.points.forEach((point, i) => {
    const distance = Math.hypot(point.x - x, point.y - y);
    if (distance < least && allowed(point, i)) [best, least] = [i, distance];
  });
  return best;
}

function step(key) {
  const ahead = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (!ahead) return false;
  const { x, y } = chart.points[chart.at];
  const to = nearest(x, y, (point) => {
    const [dx, dy] = [point.x - x, point.y - y];
    return dx * ahead[0] + dy * ahead[1] > 0.7 * Math.hypot(dx, dy);
  });
  if (to >= 0) mark(to);
  say(`A ${state.digits[chart.at].label}, number ${chart.at + 1}.`);
  return true;
}

function mark(i) {
  chart.at = i;
  chart.mark.setAttribute("cx", chart.points[i].x);
  chart.mark.setAttribute("cy", chart.points[i].y);
}

function pick(i) {
  mark(i);
  const { image, label } = state.digits[i];
  for (const input of document.querySelectorAll("[name=ex-digit-0]"))
    input.checked = Number(input.value) === i;
  choose(0, image, `Digit 1 is a ${label}, number ${i + 1} of the map.`);
}

// ---- the start

const about = {};

async function start() {
  await script("digits.js");
  const { source, images, labels } = explorerData.digits;
  state.digits = images.map((image, i) => ({ image: unpack(image), label: labels[i] }));
  document.getElementById("explorer-source").textContent = source;
  const place = (id, ...parts) => document.getElementById(id).replaceChildren(...parts);
  place("explorer-digits", picker(0), picker(1), pad());
  for (const [i, model] of MODELS.entries()) {
    say(`Loading model ${i + 1} of ${MODELS.length} …`);
    await script(explorerData.files[model]);
    about[model] = await ask("load", { model, base64: explorerData.models[model] });
    delete explorerData.models[model]; // the worker has it
  }
  const named = MODELS.map((model) => `${model}: preset ${about[model].preset}, run ${about[model].run}`);
  document.getElementById("explorer-models").textContent = named.join("; ");
  place("explorer-pair", controls(), pairSection());
  place("explorer-walk", walkSection());
  place("explorer-samples", sampleSection());
  place("explorer-map", mapSection());
  state.chosen = [14, 6].map((i) => state.digits[i].image);
  await encodePair();
  await updatePair();
  say("Ready.");
  await buildSliders();
  await drawMap(MODELS[0]);
}

const ready = start().catch((error) => say(`The explorer cannot run: ${error.message}.`));
window.explorer = { ready, ask, state };
