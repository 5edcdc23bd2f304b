// The networks of maelib in plain JavaScript: encoder, decoders and prior of the MNIST models.
//
// `load` takes what `packed` of __init__.py makes of a model; its tensors' shapes give all sizes. An
// image is 0s and 1s, row by row. A feature map is an object {channels, height, width, data}, stored
// channel by channel.

export async function load({ about, decoder, latent, tensors: listed, numbers }) {
  const values = await unpacked(numbers, listed);
  const tensors = {};
  let at = 0;
  for (const [name, [shape, count]] of Object.entries(listed))
    tensors[name] = { shape, data: values.subarray(at, (at += count)) };
  return {
    about,
    latent,
    encoder: encoder(tensors),
    decoder: { pixelcnn, resnet }[decoder](tensors),
    flow: flow(tensors),
  };
}

// Inflates the numbers. The first bytes of all of them come first, then all second bytes, and so on.
async function unpacked(text, listed) {
  const deflated = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = Object.values(listed).reduce((total, [, own]) => total + own, 0);
  const size = bytes.length / count;
  const joined = new Uint8Array(bytes.length);
  for (let i = 0; i < count; i++)
    for (let b = 0; b < size; b++) joined[i * size + b] = bytes[b * count + i];
  if (size === 4) return new Float32Array(joined.buffer);
  return Float32Array.from(new Uint16Array(joined.buffer), half);
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const elu = (x) => (x > 0 ? x : Math.exp(x) - 1);
const relu = (x) => Math.max(x, 0);

// A weight-normalised layer: w = gain * direction / |direction|, masked before the length is taken.
// `mask(o, rest)` says whether an entry counts; `rest` indexes the entries of output o. Only those
// that count are stored.
function layer(tensors, name, mask = () => true) {
  const { shape, data } = tensors[`${name}.direction`];
  const gain = tensors[`${name}.gain`].data;
  const each = shape.slice(1).reduce((product, length) => product * length, 1);
  const all = Array.from({ length: each }, (_, i) => i);
  const weight = new Float32Array(shape[0] * each);
  let from = 0;
  for (let o = 0; o < shape[0]; o++) {
    const places = all.filter((i) => mask(o, i));
    const stored = data.subarray(from, (from += places.length));
    const square = stored.reduce((sum, value) => sum + value ** 2, 0);
    const scale = gain[o] / Math.sqrt(Math.max(square, 1e-12));
    places.forEach((i, n) => (weight[o * each + i] = stored[n] * scale));
  }
  if (from !== data.length) throw new Error(`${name} has a mask that is not known`);
  return { shape, weight, bias: tensors[`${name}.bias`].data };
}

function linear({ shape: [outputs, inputs], weight, bias }, x) {
  const y = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let sum = bias[o];
    for (let i = 0; i < inputs; i++) sum += weight[o * inputs + i] * x[i];
    y[o] = sum;
  }
  return y;
}

function conv({ shape: [outputs, inputs, k], weight, bias }, x, stride = 1, padding = 0) {
  const height = Math.floor((x.height + 2 * padding - k) / stride) + 1;
  const width = Math.floor((x.width + 2 * padding - k) / stride) + 1;
  const data = new Float32Array(outputs * height * width);
  for (let o = 0, at = 0; o < outputs; o++)
    for (let r = 0; r < height; r++)
      for (let c = 0; c < width; c++, at++) {
        let sum = bias[o];
        for (let kr = 0; kr < k; kr++) {
          const row = r * stride - padding + kr;
          if (row < 0 || row >= x.height) continue;
          for (let kc = 0; kc < k; kc++) {
            const column = c * stride - padding + kc;
            if (column < 0 || column >= x.width) continue;
            for (let i = 0; i < inputs; i++)
              sum +=
                weight[((o * inputs + i) * k + kr) * k + kc] *
                x.data[(i * x.height + row) * x.width + column];
          }
        }
        data[at] = sum;
      }
  return { channels: outputs, height, width, data };
}

function transposed({ shape: [outputs, inputs, k], weight, bias }, x, stride, padding, more) {
  const height = (x.height - 1) * stride - 2 * padding + k + more;
  const width = (x.width - 1) * stride - 2 * padding + k + more;
  const data = new Float32Array(outputs * height * width);
  for (let o = 0; o < outputs; o++) {
    const sums = new Float64Array(height * width).fill(bias[o]);
    for (let i = 0; i < inputs; i++)
      for (let r = 0; r < x.height; r++)
        for (let c = 0; c < x.width; c++) {
          const value = x.data[(i * x.height + r) * x.width + c];
          for (let kr = 0; kr < k; kr++) {
            const row = r * stride - padding + kr;
            if (row < 0 || row >= height) continue;
            for (let kc = 0; kc < k; kc++) {
              const column = c * stride - padding + kc;
              if (column >= 0 && column < width)
                sums[row * width + column] += value * weight[((o * inputs + i) * k + kr) * k + kc];
            }
          }
        }
    data.set(sums, o * height * width);
  }
  return { channels: outputs, height, width, data };
}

const map = (x, f) => ({ ...x, data: x.data.map(f) });
const plus = (x, y) => ({ ...x, data: x.data.map((v, i) => v + y.data[i]) });
const asMap = (data, channels, size) => ({ channels, height: size, width: size, data });

// ---- q(z|x)

function encoder(tensors) {
  const blocks = [];
  for (let b = 0; tensors[`encoder.blocks.${b}.first.direction`]; b++)
    blocks.push(
      ["first", "second", "shortcut"].map((part) => layer(tensors, `encoder.blocks.${b}.${part}`)),
    );
  return {
    blocks,
    features: layer(tensors, "encoder.features"),
    posterior: layer(tensors, "posterior.layer"),
  };
}

// The posterior's mean and log-variance of an image.
export function encode({ encoder: { blocks, features, posterior } }, image) {
  let h = asMap(Float32Array.from(image), 1, Math.sqrt(image.length));
  for (const [first, second, shortcut] of blocks) {
    const inner = map(conv(first, h, 2, 1), elu);
    h = map(plus(conv(second, inner, 1, 1), conv(shortcut, h, 2, 0)), elu);
  }
  const output = linear(posterior, conv(features, h).data.map(elu));
  return { mu: output.slice(0, output.length / 2), logvar: output.slice(output.length / 2) };
}

// ---- p(z)

function flow(tensors) {
  const steps = [];
  for (let s = 0; tensors[`prior.steps.${s}.shift.into.direction`]; s++) {
    const reverse = s % 2 === 1;
    const made = (part) => masked(tensors, `prior.steps.${s}.${part}`, reverse);
    steps.push({ reverse, shift: made("shift"), logScale: made("log_scale") });
  }
  return steps;
}

// MADE: output k sees only the inputs before k, or after k if reversed.
function masked(tensors, name, reverse) {
  const [hidden, latent] = tensors[`${name}.into.direction`].shape;
  const order = (k) => (reverse ? latent - k : k + 1);
  const degree = (unit) => (unit % Math.max(latent - 1, 1)) + 1;
  return {
    into: layer(tensors, `${name}.into`, (unit, k) => degree(unit) >= order(k)),
    out: layer(tensors, `${name}.out`, (k, unit) => order(k) >= degree(unit) + 1),
    direct: layer(tensors, `${name}.direct`, (k, other) => order(k) >= order(other) + 1),
    hidden,
  };
}

function made({ into, out, direct }, z) {
  const y = linear(out, linear(into, z).map(relu));
  const straight = linear(direct, z);
  return y.map((v, k) => v + straight[k]);
}

// The code that standard normal noise stands for under the prior.
export function fromPrior({ flow: steps }, noise) {
  let eps = Float32Array.from(noise);
  for (const { reverse, shift, logScale } of [...steps].reverse()) {
    const z = new Float32Array(eps.length);
    for (let i = 0; i < z.length; i++) {
      const k = reverse ? z.length - 1 - i : i;
      z[k] = made(shift, z)[k] + eps[k] * Math.exp(made(logScale, z)[k]);
    }
    eps = z;
  }
  return eps;
}

// ---- p(x|z)

// The logits of an image's pixels in raster order. The generator is sent each pixel's value,
// which the factorised decoder ignores.
export function* logits(model, z) {
  yield* model.decoder.pixels(z);
}

// The image that the numbers `uniform` draw: a pixel is 1 where its probability exceeds its number.
// At temperature T the logits are divided by T; at 0 a pixel takes its more probable value.
export function* draw(model, z, uniform, temperature) {
  const pixels = logits(model, z);
  let pixel;
  for (let i = 0; i < uniform.length; i++) {
    const logit = pixels.next(pixel).value;
    pixel = temperature > 0 ? +(sigmoid(logit / temperature) > uniform[i]) : +(logit > 0);
    yield pixel;
  }
}

function resnet(tensors) {
  const get = (name) => layer(tensors, `decoder.${name}`);
  const ups = ["up7", "up14", "up28"].map((up) => ({
    parts: ["first", "second", "shortcut"].map((part) => get(`${up}.${part}`)),
    more: up === "up7" ? 0 : 1,
  }));
  const [features, project] = [get("features"), get("project")];
  return {
    *pixels(z) {
      const start = linear(features, z).map(elu);
      let h = map(transposed(project, asMap(start, start.length, 1), 1, 0, 0), elu);
      ups.forEach(({ parts: [first, second, shortcut], more }, i) => {
        const inner = map(transposed(first, h, 1, 1, 0), elu);
        h = plus(transposed(second, inner, 2, 1, more), transposed(shortcut, h, 2, 0, more));
        if (i < ups.length - 1) h = map(h, elu);
      });
      yield* h.data;
    },
  };
}

// A PixelCNN computes one new pixel of each layer at a time and keeps the layers' inputs at earlier
// pixels, so an image costs one pass.
function pixelcnn(tensors) {
  const code = layer(tensors, "decoder.code");
  const first = tensors["decoder.first.direction"].shape;
  const [channels, inputs, , kernel] = first;
  const maps = inputs - 1;
  const size = Math.sqrt(code.shape[0] / maps);
  const middle = (kernel * kernel - 1) / 2;
  const layer0 = layer(
    tensors,
    "decoder.first",
    (_, i) => i >= kernel * kernel || i < middle, // mask A for the image; the code is seen in full
  );
  const blocks = blocksOf(tensors, "decoder.blocks");
  const skips = blocksOf(tensors, "decoder.skips");
  const [last, logit] = [layer(tensors, "decoder.last"), layer(tensors, "decoder.logit")];

  function* pixels(z) {
    const fromCode = layer0OfCode(layer0, asMap(linear(code, z).map(elu), maps, size));
    const image = new Float32Array(size * size);
    const caches = new Map([...blocks, ...skips].map((block) => [block, cache(block, size)]));
    const residual = (block, h, at) => blockAt(block, caches.get(block), h, at);
    for (let row = 0, at = 0; row < size; row++)
      for (let column = 0; column < size; column++, at++) {
        let h = layer0At(layer0, fromCode, image, size, row, column);
        const outputs = [h];
        blocks.forEach((block, j) => {
          h = sum(h, residual(block, h, [row, column]));
          outputs.push(h);
          if (j >= 1) h = sum(h, residual(skips[j - 1], outputs[j - 1], [row, column]));
        });
        image[at] = yield linear(logit, linear(last, h.map(elu)).map(elu))[0];
      }
  }
  return { pixels, channels, size };
}

const sum = (x, y) => x.map((v, i) => v + y[i]);

function layer0OfCode({ shape: [channels, inputs, , k], weight, bias }, code) {
  const each = k * k;
  const own = new Float32Array(channels * (inputs - 1) * each);
  for (let o = 0; o < channels; o++)
    own.set(
      weight.subarray((o * inputs + 1) * each, (o + 1) * inputs * each),
      o * (inputs - 1) * each,
    );
  return conv({ shape: [channels, inputs - 1, k], weight: own, bias }, code, 1, (k - 1) / 2);
}

function layer0At({ shape: [channels, inputs, , k], weight }, fromCode, image, size, row, column) {
  const h = new Float32Array(channels);
  const side = (k - 1) / 2;
  for (let o = 0; o < channels; o++) {
    let total = fromCode.data[(o * size + row) * size + column];
    for (let kr = 0; kr <= side; kr++) {
      const r = row - side + kr;
      if (r < 0) continue;
      for (let kc = 0; kc < (kr < side ? k : side); kc++) {
        const c = column - side + kc;
        if (c >= 0 && c < size)
          total += weight[(o * inputs * k + kr) * k + kc] * image[r * size + c];
      }
    }
    h[o] = total;
  }
  return h;
}

function blocksOf(tensors, name) {
  const blocks = [];
  for (let b = 0; tensors[`${name}.${b}.masked.direction`]; b++) {
    const [, inputs, rows, k] = tensors[`${name}.${b}.masked.direction`].shape;
    const visible = (rows - 1) * k + (k + 1) / 2; // mask B: up to the pixel itself
    const plain = layer(tensors, `${name}.${b}.masked`, (_, i) => i % (rows * k) < visible);
    blocks.push({
      reduce: layer(tensors, `${name}.${b}.reduce`),
      masked: { ...plain, weight: channelsLast(plain.weight, plain.shape) },
      expand: layer(tensors, `${name}.${b}.expand`),
      inputs,
    });
  }
  return blocks;
}

// Weights in the order output, row, column, input: a row of the kernel meets a row of the cache.
function channelsLast(weight, [outputs, inputs, rows, k]) {
  const moved = new Float32Array(weight.length);
  for (let o = 0; o < outputs; o++)
    for (let i = 0; i < inputs; i++)
      for (let at = 0; at < rows * k; at++)
        moved[(o * rows * k + at) * inputs + i] = weight[(o * inputs + i) * rows * k + at];
  return moved;
}

// The masked layer's inputs at all pixels so far, with a border of zeros above and at the sides.
function cache(
  {
    inputs,
    masked: {
      shape: [, , rows, k],
    },
  },
  size,
) {
  const width = size + k - 1;
  return { width, data: new Float32Array((size + rows - 1) * width * inputs) };
}

function blockAt({ reduce, masked: { shape, weight, bias }, expand }, seen, h, [row, column]) {
  const [outputs, inputs, rows, k] = shape;
  const pixel = linear(reduce, h.map(elu)).map(elu);
  seen.data.set(pixel, ((row + rows - 1) * seen.width + column + (k - 1) / 2) * inputs);
  const y = new Float32Array(outputs);
  for (let o = 0; o < outputs; o++) {
    let total = bias[o];
    for (let kr = 0; kr < rows; kr++) {
      const from = ((row + kr) * seen.width + column) * inputs;
      const weights = (o * rows + kr) * k * inputs;
      const end = kr < rows - 1 ? k * inputs : ((k + 1) / 2) * inputs;
      for (let i = 0; i < end; i++) total += weight[weights + i] * seen.data[from + i];
    }
    y[o] = elu(total);
  }
  return linear(expand, y);
}
