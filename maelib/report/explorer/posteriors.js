// The posteriors of all digits under a model.
import { ask } from "./ask.js";
import { normals } from "./noise.js";
import { state } from "./state.js";

const summaries = {};

// The posteriors of all digits under a model, and what they say of each dimension. The information
// of dimension k in nats is that of a Gaussian channel, log(1 + Var mu_k / E sigma_k^2) / 2.
export function summary(model) {
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
export function principal({ codes, means }) {
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

export function project({ mu, logvar }, means, [a, b]) {
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
