// The thread that computes. The page asks, and a job answers with a value or a series of rows.
import { draw, encode, fromPrior, load, logits } from "./network.js";

const models = {};
const newest = {}; // of each key, the last job that was asked for: it makes older ones stale
let queue = Promise.resolve();

const jobs = {
  async load({ model, packed }) {
    models[model] = await load(packed);
    const { about, latent } = models[model];
    return { about, latent };
  },
  encode: ({ model, images }) => images.map((image) => encode(models[model], image)),
  prior: ({ model, noise }) => fromPrior(models[model], noise),
  logits({ model, code, image }) {
    const pixels = logits(models[model], code);
    return image.map((_, i) => pixels.next(image[i - 1]).value);
  },
  draw: rows,
};

// Images drawn together: each item is {model, code, uniform, temperature}. Every row is sent as
// soon as it is done; `pause` is the time in ms between two rows.
async function rows({ items, pause }, { send, stale }) {
  const images = items.map(({ model, code, uniform, temperature }) => ({
    pixels: draw(models[model], code, uniform, temperature),
    image: new Uint8Array(uniform.length),
    width: Math.sqrt(uniform.length),
  }));
  for (let row = 0; row < images[0].width; row++) {
    for (const [item, { pixels, image, width }] of images.entries()) {
      for (let at = row * width; at < (row + 1) * width; at++) image[at] = pixels.next().value;
      send({ item, row, pixels: image.slice(row * width, (row + 1) * width) });
    }
    if (pause || row % 4 === 3) await new Promise((done) => setTimeout(done, pause));
    if (stale()) return null;
  }
  return images.map(({ image }) => image);
}

async function answer({ id, job, key, ...rest }) {
  const stale = () => key !== undefined && newest[key] !== id;
  const send = (part) => postMessage({ id, part });
  try {
    const value = stale() ? null : await jobs[job](rest, { send, stale });
    postMessage({ id, value });
  } catch (error) {
    postMessage({ id, error: String(error) });
  }
}

onmessage = ({ data }) => {
  if (data.key !== undefined) newest[data.key] = data.id;
  queue = queue.then(() => answer(data));
};
