"""Markdown made from what was measured, for README.md and docs/; ``make docs`` puts it there."""

import json
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pandas as pd
import reproduction

from maelib.config import COLOUR_PRESETS, PARTS, PRESETS, resolve
from maelib.experiments import ZOO
from maelib.report import zoo
from maelib.runs.record import Record, collect
from maelib.training.state import Progress
from maelib.training.validate import information_rises

REMEDIES = "training step, laptop, by remedy"  # a row of bench.py
ABOUT = ("cpu", "cpu_capability", "threads", "torch", "commit")  # of a benchmark's provenance
SHORT_EPOCHS = (
    f"{PRESETS['short']['epochs']} epochs ({COLOUR_PRESETS['short']['epochs']} of CIFAR-10)"
)
ONE_EPOCH = "published width, 1 epoch, cooldown"
FAILED = "none: the loss was not finite"
SHORT = "a run on MNIST in minutes on a GPU, in hours on a CPU"
NOT_MEASURED = "This has not been measured yet."
ROOT = Path(__file__).parents[1]
MAIN = ["ResNet VAE with AF", "VLAE (w. free bits)", "MAE (alpha = 1.0, beta = 0.5)"]


def main_rows() -> str:
    """Three rows of Table 4, the paper's value before ours, and what they were measured on."""
    return reproduction.main_rows(MAIN)


def preset_table() -> str:
    """What each preset is for, and how many runs of it are in results/."""
    about = {
        "smoke": ("tiny", "a few steps", "tests"),
        "quick": ("small", "a part of the images", "a first look, in minutes"),
        "laptop": ("small", "all images, a few epochs", "all runs of the paper, in hours"),
        "short": ("as published", SHORT_EPOCHS, SHORT),
        "paper": ("as published", "until the learning-rate schedule ends", "a GPU"),
    }
    done = Counter(record.config.preset for record in collect(ROOT / "results"))
    done["smoke"] = "not kept"
    rows = [(f"`{name}`", *words, done[name] or "none yet") for name, words in about.items()]
    heads = ["preset", "network", "training", "for", "results"]
    return _markdown(pd.DataFrame(rows, columns=heads))


def timings() -> str:
    """Minutes that the training of the recorded runs took."""
    rows = [
        (r.config.preset, r.config.data.name, _device(r), r.provenance["train_seconds"] / 60)
        for r in collect(ROOT / "results")
    ]
    heads = ["preset", "data set", "trained on"]
    minutes = pd.DataFrame(rows, columns=[*heads, "t"]).groupby(heads)
    return _markdown(minutes["t"].agg(["count", "min", "median"]).round(1).reset_index())


def _device(record: Record) -> str:
    """A GPU's name, or ``CPU``: processors differ too, but a record does not name them."""
    made = record.provenance
    return made["hardware"] if made["device"] == "cuda" else made["device"].upper()


def notebook_times() -> str:
    """benchmarks/notebooks.json: minutes that the cells of each notebook took."""
    path = ROOT / "benchmarks" / "notebooks.json"
    if not path.exists():
        return NOT_MEASURED
    measured = pd.read_json(path, orient="index")
    minutes = (measured[["running", "training"]] / 60).round(1).add_suffix(" (minutes)")
    threads = measured["threads"].map(lambda n: f"{n} thread{'s' * (n > 1)}")
    machines = (threads + " on " + measured["hardware"]).unique()
    note = (
        "The column training is the time that was spent earlier on training the models which the "
        "notebook loaded. If you do not have these models, add this time."
    )
    table = _markdown(minutes.rename_axis("notebook").reset_index())
    return f"{table}\n\n{note}\nMeasured with {' and '.join(machines)}."


def presets(dataset: str) -> str:
    """The options in which the presets differ, for the kind of images of ``dataset``."""
    configs, rows = [resolve(preset, dataset) for preset in PRESETS], []
    for part, kind in PARTS.items():
        for option in fields(kind):
            values = [str(getattr(getattr(config, part), option.name)) for config in configs]
            if len(set(values)) > 1:
                rows.append([f"`{option.name}`", option.metadata["help"], *values])
    return _markdown(pd.DataFrame(rows, columns=["option", "meaning", *PRESETS]))


def equal_time() -> str:
    """The validation ELBO at the end of each training, and of an epoch of the published network.

    They are in benchmarks/equal-time.json and benchmarks/precision.json.
    """
    content = json.loads((ROOT / "benchmarks" / "equal-time.json").read_text())
    rows = []
    for name, row in content["rows"].items():
        last = row["history"][-1] if row["history"] else None
        found = (last["step"], f"{last['val_elbo']:.2f}") if last else ("", FAILED)
        rows.append((name, row["cpu"], *found))
    curves = json.loads((ROOT / "benchmarks" / "precision.json").read_text())["rows"]
    last = curves["bf16, seed 0"][-1]
    place = next(i for i, row in enumerate(rows) if row[0].startswith("published"))
    row = (ONE_EPOCH, "not recorded", last["step"], f"{last['val_elbo']:.2f}")
    rows.insert(place, row)
    heads = ["training", "processor", "steps", "L_elbo on 1,000 validation images (nats)"]
    return _markdown(pd.DataFrame(rows, columns=heads))


def benchmarks(name: str = "results-cpu") -> str:
    """benchmarks/NAME.json: medians in seconds, then what they were measured on."""
    content = json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())
    rows = pd.DataFrame(content["rows"])[["row", "medians", "ratio", "target", "note"]].fillna("")
    rows = rows[rows["row"] != REMEDIES]
    rows["medians"] = [
        "; ".join(f"{side}: {float(f'{s:.3g}'):g}" for side, s in medians.items())
        for medians in rows["medians"]
    ]
    rows["ratio"] = [f"{ratio:.3g}" if ratio else "" for ratio in rows["ratio"]]
    where = ", ".join(f"{name} {content['provenance'][name]}" for name in ABOUT)
    return f"{_markdown(rows)}\n\nMedians are in seconds. Measured on: {where}."


def instructions() -> str:
    """benchmarks/instructions*.json: steps in both precisions, by processor and instructions."""
    rows, about = [], []
    for path in sorted((ROOT / "benchmarks").glob("instructions*.json")):
        content = json.loads(path.read_text())
        made = content["provenance"]
        about.append(", ".join(f"{name} {made[name]}" for name in ABOUT if name != "threads"))
        for row in content["rows"]:
            _, network, allowed = row["row"].split(", ")
            seconds = (f"{s:.3g}" for s in row["medians"].values())
            rows.append((made["cpu"], network, allowed, *seconds, f"{row['ratio']:.2f}"))
    heads = ["processor", "network of", "instructions", "float32 (seconds)", "bf16 (seconds)"]
    table = _markdown(pd.DataFrame(rows, columns=[*heads, "float32 / bf16"]))
    return f"{table}\n\nMeasured on: {'; and '.join(about)}."


def remedies_at_equal_time() -> str:
    """What a step of each remedy costs, and how far it is in the time of the plain VAE."""
    content = json.loads((ROOT / "benchmarks" / "remedies.json").read_text())
    # In each round every remedy took a step.
    rounds = pd.DataFrame(content["rows"][0]["timings"])
    costs = rounds.div(rounds["plain VAE"], axis=0).median().round(1)
    records, rows = zoo.fullest(collect(ROOT / "results")), []
    for name, tries in ZOO.items():
        if runs := zoo.best(tries, records)[1]:
            then = pd.DataFrame([_in_time(run, costs[name]) for run in runs])
            end = pd.DataFrame([run.history[-1] for run in runs])
            elbos = [f"{each['val_elbo'].mean():.2f}" for each in (then, end)]
            rows.append([name, costs[name], then["step"].min(), *elbos])
    heads = ["remedy", "cost of a step", "steps in equal time", "L_elbo then", "L_elbo at the end"]
    about = ", ".join(f"{name} {content['provenance'][name]}" for name in ABOUT)
    return f"{_markdown(pd.DataFrame(rows, columns=heads))}\n\nCosts measured on: {about}."


def _in_time(run: Record, cost: float) -> dict[str, float]:
    """A run's last validation in the time that its number of steps takes at a cost of 1.

    The first validation counts even if it came later.
    """
    spent, last, rows = 0.0, {"step": 0}, run.history
    for number, row in enumerate(rows):
        is_costly = not run.config.training.encoder_steps or information_rises(
            Progress(history=rows[:number])
        )
        spent += (row["step"] - last["step"]) * (cost if is_costly else 1.0)
        if number and spent > rows[-1]["step"]:
            return last
        last = row
    return last


def gpu_steps() -> str:
    """benchmarks/gpu-steps.json: seconds of a step in each way, and what they were measured on."""
    content = json.loads((ROOT / "benchmarks" / "gpu-steps.json").read_text())
    rows = [(f"`{way}`", f"{1000 * s:.1f}") for way, s in content["seconds"].items()]
    about = ", ".join(f"{name} {content[name]}" for name in ("gpu", "torch", "commit"))
    table = _markdown(pd.DataFrame(rows, columns=["way", "milliseconds"]))
    return f"{table}\n\nMeasured on: {about}, {content['precision']}."


def gpu_runs() -> str:
    """The time that the training of each run on a GPU took, and its way of taking steps."""
    rows = [
        (r.config.label(), r.config.seed, r.provenance["way"], f"{made / 60:.1f}")
        for r in collect(ROOT / "results")
        if r.config.preset == "short" and r.provenance["device"] == "cuda"
        for made in [r.provenance["train_seconds"]]
    ]
    return _markdown(pd.DataFrame(rows, columns=["model", "seed", "way", "minutes of training"]))


def growth() -> str:
    """The picture that bench.py drew beside its JSON, and what it shows."""
    return _picture(
        "results-cpu",
        "Seconds and peak memory against batch, importance samples and images",
        "Each point was measured in a process of its own, which gives freed memory back at once.\n"
        "So the peak is what is needed, and the times are longer than in the table above.\n"
        "The dashed lines are proportional to the size.",
    )


def precision() -> str:
    """The picture that precision_curves.py drew, and what it shows."""
    return _picture(
        "precision",
        "Training loss, KL, MPD and validation ELBO in bfloat16 and in float32",
        "Each point of the loss, of KL and of MPD is a mean over 20 steps.\n"
        "The learning rate falls to zero over the last quarter.",
    )


def _picture(name: str, words: str, note: str) -> str:
    if not (ROOT / "benchmarks" / f"{name}.png").exists():
        return NOT_MEASURED
    return f"![{words}](../benchmarks/{name}.png)\n\n{note}"


def soak() -> str:
    """benchmarks/soak.json: how many tries of each fault ended in which way, and all of them."""
    path = ROOT / "benchmarks" / "soak.json"
    if not path.exists():
        return NOT_MEASURED
    rows = pd.read_json(path)
    total = {"fault": "all", **rows.drop(columns="fault").sum()}
    last = {"reply": "damaged files and replies", "three": "strikes and starts", "tests": "tests"}
    missing = [part for word, part in last.items() if not rows["fault"].str.contains(word).any()]
    note = f"\n\nThis run was ended early. Not complete: {', '.join(missing)}." if missing else ""
    return _markdown(pd.concat([rows, pd.DataFrame([total])])) + note


def _markdown(frame: pd.DataFrame) -> str:
    return frame.astype(str).to_markdown(index=False, disable_numparse=True)
