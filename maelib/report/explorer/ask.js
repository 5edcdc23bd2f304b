// The worker, and the data in the scripts beside this one.

const HERE = document.currentScript.src; // nothing if the page holds this script
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

export function ask(job, rest = {}, onpart) {
  const id = ++asked;
  worker.postMessage({ id, job, ...rest });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject, onpart }));
}

// A script works where a page from a disk may not fetch a file.
export function script(name) {
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

// Waits until all that was asked has been answered.
export const settled = async () => {
  while (waiting.size) await new Promise((done) => setTimeout(done, 20));
};
