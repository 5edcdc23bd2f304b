// Samples from the prior.
import { ask } from "./ask.js";
import { button, element, picture, say } from "./dom.js";
import { normals, uniforms } from "./noise.js";
import { MODELS, about, drawInto } from "./state.js";

const SAMPLES = 6;

export function sampleSection() {
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
    await drawInto(
      "samples",
      MODELS.flatMap((model) => canvases[model]),
      items,
    );
    say(`${SAMPLES} new samples of each model.`);
  };
  const rows = MODELS.map((model) =>
    element("div", { className: "ex-samples" }, element("strong", {}, model), ...canvases[model]),
  );
  const section = element("div", {}, button("Draw samples", again), ...rows);
  const observer = new IntersectionObserver(([{ isIntersecting }]) => {
    if (!isIntersecting) return;
    observer.disconnect();
    again();
  });
  observer.observe(section);
  return section;
}
