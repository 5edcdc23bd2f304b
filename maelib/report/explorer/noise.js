// Random numbers that are the same for the same seed.
import { SIZE } from "./dom.js";

// mulberry32
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function uniforms(seed) {
  const next = random(seed);
  return Float32Array.from({ length: SIZE * SIZE }, next);
}

export function normals(seed, count) {
  const next = random(seed);
  const one = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return Float32Array.from({ length: count }, one);
}
