// The start: data and models are loaded, and the sections are put into the page.
import { ask, script, settled } from "./ask.js";
import { choose, controls, pad, picker, unpack } from "./digits.js";
import { say } from "./dom.js";
import { drawMap, mapSection } from "./map.js";
import { encodePair, pairSection, updatePair } from "./pair.js";
import { sampleSection } from "./samples.js";
import { MODELS, about, state } from "./state.js";
import { buildSliders, walkSection } from "./walk.js";

async function start() {
  const { source, images, labels } = explorerData.digits;
  state.digits = images.map((image, i) => ({ image: unpack(image), label: labels[i] }));
  state.chosen = [14, 6].map((i) => state.digits[i].image);
  document.getElementById("explorer-source").textContent = source;
  const place = (id, ...parts) => document.getElementById(id).replaceChildren(...parts);
  place("explorer-digits", picker(0), picker(1), pad());
  for (const [i, model] of MODELS.entries()) {
    say(`Loading model ${i + 1} of ${MODELS.length} …`);
    if (!explorerData.models[model]) await script(explorerData.files[model]);
    about[model] = await ask("load", { model, packed: explorerData.models[model] });
    delete explorerData.models[model]; // the worker has it
  }
  const named = MODELS.map((model) => `${model}: ${about[model].about}`);
  document.getElementById("explorer-models").textContent = named.join("; ");
  place("explorer-pair", controls(), pairSection());
  place("explorer-walk", walkSection());
  place("explorer-samples", sampleSection());
  place("explorer-map", mapSection(choose));
  state.loaded = true;
  await encodePair();
  await updatePair();
  say("Ready.");
  await buildSliders();
  await drawMap(MODELS[0]);
}

const ready = start().catch((error) => say(`The explorer cannot run: ${error.message}.`));
window.explorer = { ready, ask, settled, state }; // for tests, and for the curious
