// Choosing the two digits, drawing one, and how they are decoded.
import { SIZE, button, element, paint, picture, say, slider } from "./dom.js";
import { markChosen } from "./map.js";
import { encodePair, updatePair } from "./pair.js";
import { state } from "./state.js";
import { resetWalk, updateWalk } from "./walk.js";

// Eight pixels a byte, as text.
export function unpack(text) {
  const bits = new Uint8Array(SIZE * SIZE);
  [...atob(text)].forEach((character, i) => {
    for (let b = 0; b < 8; b++) bits[8 * i + b] = (character.charCodeAt(0) >> (7 - b)) & 1;
  });
  return bits;
}

export function picker(place) {
  const options = state.digits.slice(0, 20).map(({ image, label }, i) => {
    const input = element("input", { type: "radio", name: `ex-digit-${place}`, value: i });
    input.setAttribute("aria-label", `a ${label}, number ${i + 1}`);
    input.addEventListener("change", () =>
      choose(place, image, `Digit ${place + 1} is a ${label}.`),
    );
    const canvas = picture("");
    canvas.setAttribute("aria-hidden", "true");
    paint(canvas, image);
    return element("label", { className: "ex-option" }, input, canvas);
  });
  options[state.digits.findIndex(({ image }) => image === state.chosen[place])].firstChild.checked = true;
  return element(
    "fieldset",
    { className: "ex-picker" },
    element("legend", {}, `Digit ${place + 1}`),
    ...options,
  );
}

export async function choose(place, image, text) {
  state.chosen[place] = image;
  say(text);
  if (!state.loaded) return;
  markChosen();
  await encodePair();
  resetWalk();
  await Promise.all([updatePair(), updateWalk()]);
}

export function pad() {
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
    for (const [r, c] of [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ])
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
  return element(
    "fieldset",
    { className: "ex-drawing" },
    element("legend", {}, "Or draw a digit"),
    canvas,
    element("div", {}, use, " ", clear),
  );
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

export function controls() {
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
  return element(
    "div",
    { className: "ex-controls" },
    swap,
    noise,
    element("label", {}, slow, " Draw slowly"),
    temperature.label,
  );
}
