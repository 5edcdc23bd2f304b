"""How the NLL of each model falls with the number of importance samples.

python benchmarks/importance_samples.py --json benchmarks/importance-samples.json

The pretrained models of Table 4 on MNIST, on the first of the class-balanced test images that their
NLL is measured on. Each k takes the first k of the same samples, which are the evaluation's own, so
differences between models and between two k are paired. A model that the JSON file has for as many
images is kept.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from maelib.data import dataset
from maelib.internal.shapes import Images
from maelib.measure.estimate import balanced_order
from maelib.measure.evaluation import BLOCK, SEED, iw_nll, log_weights, noise_block, test_images
from maelib.model import VAE
from maelib.nets.layers import fixed_weights
from maelib.runs import pretrained
from maelib.runs.record import provenance
from maelib.runs.run import pick_device
from maelib.training.precision import choose, inference_precision

MODELS = ("mnist-vae", "mnist-vlae", "mnist-mae-a1-b0.5")
SAMPLES = (1, 8, 64, 128, 256, 512, 1024)


def main() -> None:
    """Measure the models that are missing and write the file after each."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=500, help="test images")
    options.add_argument("--json", type=Path, required=True, help="file of the results")
    chosen = options.parse_args()
    device = pick_device()
    found = json.loads(chosen.json.read_text()) if chosen.json.exists() else {"models": {}}
    test = dataset.load("mnist").test
    order = torch.from_numpy(balanced_order(test.labels.numpy(), SEED))[: chosen.images]
    x = test_images(test.images[order].to(device))
    precision = choose("auto", device)
    for name in MODELS:
        if name in found["models"] and found["models"][name]["images"] == len(x):
            continue
        kept = pretrained.find(name)
        model = kept.load(device)
        each = nlls(model, x, precision)
        same = iw_nll(model, x[:8], SAMPLES[1], precision=precision)
        torch.testing.assert_close(each[SAMPLES[1]][:8], same, atol=0.05, rtol=0.0)
        about = {k: provenance(device, 0.0)[k] for k in ("commit", "torch", "hardware")}
        found["models"][name] = {
            "label": kept.config.label(),
            "preset": kept.config.preset,
            "images": len(x),
            "precision": precision,
            **about,
            "nll": {k: [round(v, 3) for v in values.tolist()] for k, values in each.items()},
        }
        chosen.json.write_text(json.dumps(found) + "\n")


@torch.no_grad()
def nlls(model: VAE, x: Images, precision: str, rows: int = 256) -> dict[int, torch.Tensor]:
    """The NLL of each image in nats by each number of ``SAMPLES``."""
    found = {k: [] for k in SAMPLES}
    per_batch = rows // BLOCK
    with fixed_weights(model), inference_precision(precision, x.device):
        for first in range(0, len(x), per_batch):
            weights = _weights(model, x[first : first + per_batch], first, max(SAMPLES))
            for k in SAMPLES:
                found[k].append(math.log(k) - weights[:k].logsumexp(0))
    return {k: torch.cat(parts) for k, parts in found.items()}


def _weights(model: VAE, x: Images, first: int, k: int) -> torch.Tensor:
    """Log importance weights [k, image] of the images that begin at index ``first``."""
    posterior, parts = model.encode(x), []
    for block in range(-(-k // BLOCK)):
        noise = [noise_block(first + i, block, model.prior.latent) for i in range(len(x))]
        parts.append(log_weights(model, x, torch.stack(noise, 1).to(x), posterior))
    return torch.cat(parts)[:k]


if __name__ == "__main__":
    main()
