"""Width, schedule and learning rate at equal time: what the presets ``laptop`` and ``short`` use.

python benchmarks/equal_time.py --out build/equal-time --json benchmarks/equal-time.json

MAE(1, 0.5) on MNIST from seed 0. A step of the published network takes three times as long as one
of ``laptop``'s on a core with AMX, so 2 epochs of it are compared with 6. The search for ``short``
trains the published network for 2 epochs at four rates. A training that was stopped continues,
and a row that the JSON file has is kept.
"""

import argparse
import json
from pathlib import Path

from timing import provenance

from maelib.config import Config, resolve
from maelib.data import dataset
from maelib.runs.run import pick_device
from maelib.training.loop import train
from maelib.training.state import TrainingError

COMMON = {"lr": 2e-3, "val_images": 1000, "test_images": 1000, "nll_images": 10, "nll_k": 8}
COSINE = {"schedule": "cosine", "ema": 0.995}
ROWS = {
    "laptop, 3 epochs, cosine": ("laptop", COSINE),
    "laptop, 3 epochs, cooldown": ("laptop", {}),
    "laptop, 6 epochs, cosine": (
        "laptop", {"epochs": 6, "validate_steps": 295, **COSINE, **COMMON},
    ),
    "laptop, 6 epochs, cooldown": ("laptop", {"epochs": 6, "validate_steps": 295, **COMMON}),
    "published width, 2 epochs, cosine": (
        "paper", {"epochs": 2, "validate_steps": 145, **COSINE, **COMMON},
    ),
    **{
        f"published width, 2 epochs, cooldown, rate {lr:g}": (
            "short", {"epochs": 2, "validate_steps": 145, **COMMON, "lr": lr},
        )
        for lr in (1e-3, 2e-3, 3e-3, 4e-3)
    },
}  # fmt: skip


def main() -> None:
    """Train what is missing and write the validation curves."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, required=True, help="folder of the trainings")
    options.add_argument("--json", type=Path, required=True, help="file of the curves")
    chosen = options.parse_args()
    device = pick_device()
    rows = json.loads(chosen.json.read_text())["rows"] if chosen.json.exists() else {}
    for name, (preset, given) in ROWS.items():
        if name not in rows:
            folder = chosen.out / name.replace(", ", "-")
            found = provenance(device)
            about = {key: found[key] for key in ("cpu", "torch", "device", "commit")}
            history = curve(resolve(preset, "mnist", **given), folder)
            rows[name] = {**about, "history": history}
    rows = {name: rows[name] for name in ROWS}
    chosen.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


def curve(config: Config, folder: Path) -> list[dict]:
    """Steps and validation ELBOs, in nats, of one training; none if its loss was not finite."""
    try:
        _, progress = train(config, dataset.load("mnist"), folder, pick_device())
    except TrainingError as problem:
        print(problem)
        return []
    return [{name: row[name] for name in ("step", "val_elbo")} for row in progress.history]


if __name__ == "__main__":
    main()
