// A map of the posteriors: their means and ellipses in the plane of largest variance.
import { element, say, select, svg } from "./dom.js";
import { principal, project, summary } from "./posteriors.js";
import { MODELS, state } from "./state.js";

const chart = { points: [], at: 0 };

// `choose` is told which digit was clicked.
export function mapSection(choose) {
  chart.svg = svg("svg", {
    class: "ex-map",
    tabindex: 0,
    role: "application",
    "aria-label":
      "Map of the posteriors: arrow keys move to a neighbouring digit, Enter chooses it",
  });
  chart.svg.addEventListener("click", (event) => {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      chart.svg.getScreenCTM().inverse(),
    );
    pick(nearest(x, y, () => true), choose);
  });
  chart.svg.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") pick(chart.at, choose);
    else if (!step(event.key)) return;
    event.preventDefault();
  });
  return element("div", {}, select("Model", MODELS, drawMap), chart.svg);
}

export async function drawMap(model) {
  const told = await summary(model);
  const axes = principal(told);
  chart.points = told.codes.map((code) => project(code, told.means, axes));
  const far = Math.max(
    ...chart.points.map(({ x, y, long }) => Math.max(Math.abs(x), Math.abs(y)) + long),
  );
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
  markChosen();
}

// Mark digit 1, unless it was drawn.
export function markChosen() {
  const i = state.digits.findIndex(({ image }) => image === state.chosen[0]);
  if (i >= 0 && chart.mark) mark(i);
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
  const ahead = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
    key
  ];
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

function pick(i, choose) {
  const { image, label } = state.digits[i];
  for (const input of document.querySelectorAll("[name=ex-digit-0]"))
    input.checked = Number(input.value) === i;
  choose(0, image, `Digit 1 is a ${label}, number ${i + 1} of the map.`);
}
