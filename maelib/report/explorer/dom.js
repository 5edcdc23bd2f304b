// Parts of the page: elements, pictures and controls.

export const SIZE = 28;

export function element(tag, properties = {}, ...children) {
  const { data = {}, aria = {}, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, data);
  for (const [name, value] of Object.entries(aria)) made.setAttribute(`aria-${name}`, value);
  made.append(...children);
  return made;
}

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function picture(label) {
  const canvas = element("canvas", { width: SIZE, height: SIZE, className: "ex-picture" });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  return canvas;
}

export function paint(canvas, pixels, row = 0) {
  const height = pixels.length / SIZE;
  const image = new ImageData(SIZE, height);
  pixels.forEach((value, i) =>
    image.data.set(value ? [20, 20, 30, 255] : [255, 255, 255, 255], 4 * i),
  );
  canvas.getContext("2d").putImageData(image, 0, row);
}

export function say(text) {
  document.getElementById("explorer-status").textContent = text;
}

export function button(text, onclick, properties = {}) {
  return element(
    "button",
    { type: "button", className: "ex-button", onclick, ...properties },
    text,
  );
}

export function slider(text, { min, max, step, value }, oninput) {
  const shown = element("output", {}, value);
  const input = element("input", { type: "range", min, max, step, value });
  input.addEventListener("input", () => {
    shown.textContent = Number(input.value).toFixed(2);
    oninput(Number(input.value));
  });
  const label = element(
    "label",
    { className: "ex-slider" },
    element("span", {}, text),
    input,
    shown,
  );
  return { label, input, shown };
}

export function select(text, names, onchange) {
  const box = element("select", {}, ...names.map((name) => element("option", {}, name)));
  box.addEventListener("change", () => onchange(box.value));
  return element("label", {}, `${text} `, box);
}
