"""Does the fast path train like float32? One epoch of the published network, from the same seed.

python benchmarks/precision_curves.py --out build/precision --json benchmarks/precision.json

MAE(1, 0.5) on MNIST at ``short``, for one epoch: with bfloat16 products, with float32, and with
bfloat16 from another seed, which shows how far apart two equally good trainings are. A training
that was stopped continues, and a finished one is only read. The picture lies beside the JSON.
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from maelib.config import resolve
from maelib.data import dataset
from maelib.runs.record import provenance
from maelib.runs.run import pick_device
from maelib.training.loop import train

ROWS = {"bf16, seed 0": ("bf16", 0), "float32, seed 0": ("float32", 0), "bf16, seed 1": ("bf16", 1)}
COLOURS = ("#0173B2", "#DE8F05", "#949494")
SIZES = {"epochs": 1, "validate_steps": 20, "val_images": 1000}
SHOWN = ("loss", "kl", "mpd", "val_elbo")


def main() -> None:
    """Train what is missing, write the curves and draw them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    options.add_argument("--json", type=Path, required=True, help="file of the curves")
    options.add_argument("--preset", default="short", help="of the networks (%(default)s)")
    options.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    chosen = options.parse_args()
    rows = {name: curve(chosen.preset, *ROWS[name], chosen.out) for name in chosen.rows}
    found = provenance(pick_device(), 0.0)
    about = {name: found[name] for name in ("torch", "hardware", "device")}
    chosen.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    picture(rows).savefig(chosen.json.with_suffix(".png"), dpi=100)


def curve(preset: str, precision: str, seed: int, out: Path) -> list[dict]:
    """Steps and what is shown of them, in nats: means of 20 steps, or of validation images."""
    config, folder = resolve(preset, "mnist", seed=seed, **SIZES), out / f"{precision}-{seed}"
    data, device = dataset.load("mnist"), pick_device()
    _, progress = train(config, data, folder, device, precision=precision)
    return [{name: round(row[name], 4) for name in ("step", *SHOWN)} for row in progress.history]


def picture(rows: dict[str, list[dict]]) -> Figure:
    """Each quantity against the step, a line for each training."""
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(14, 3.4), layout="constrained")
    names = ("training loss", "KL", "MPD", "L_elbo of 1,000 validation images")
    for ax, key, name in zip(axes, SHOWN, names, strict=True):
        for (label, points), colour in zip(rows.items(), COLOURS, strict=False):
            steps, values = zip(*((p["step"], p[key]) for p in points), strict=True)
            ax.plot(steps, values, color=colour, lw=1.4, label=label)
        late = [p[key] for points in rows.values() for p in points[len(points) // 15 :]]
        ax.set_ylim(min(late), max(late))
        ax.set(xlabel="step", ylabel="nats", title=name)
    axes[0].legend()
    return figure


if __name__ == "__main__":
    main()
