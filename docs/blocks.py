"""Markdown made from what was measured, for README.md and docs/; ``make docs`` puts it there."""

import json
from dataclasses import fields
from pathlib import Path

import pandas as pd

from maelib.config import PARTS, PRESETS, resolve
from maelib.experiments import FORMS
from maelib.runs.record import collect

ROOT = Path(__file__).parents[1]
TABLE4 = ROOT / "figures" / "table4.csv"
MAIN = ["ResNet VAE with AF", "VLAE (w. free bits)", "MAE (alpha = 1.0, beta = 0.5)"]


def table(name: str) -> str:
    """figures/NAME.md: a table and its caption."""
    return (ROOT / "figures" / f"{name}.md").read_text(encoding="utf-8").strip()


def main_rows() -> str:
    """Three rows of Table 4, the paper's value before ours."""
    rows = pd.read_csv(TABLE4, index_col="model", dtype=str).loc[MAIN]
    both = {m: rows[f"{m} paper"] + " / " + rows[f"{m} ours"] for m in ("kl", "mpd", "std", "nll")}
    return _markdown(pd.DataFrame(both).rename(columns=str.upper).reset_index())


def claims() -> str:
    """How many comparisons of each claim have which verdict, by kind of measure."""
    found = pd.read_csv(ROOT / "figures" / "claims.csv")
    measure = found["comparison"].str.extract("^([a-z]+)", expand=False).rename("measure")
    return _markdown(pd.crosstab([found["claim"], measure], found["verdict"]).reset_index())


def forms() -> str:
    """MPD on MNIST at beta = 0.5: the paper's, then ours by form of L_diverse and preset."""
    printed = pd.read_csv(TABLE4, index_col="model", dtype=str)["mpd paper"]
    ours = {r.config: f"{r.measurements['mpd']:.2f}" for r in collect(ROOT / "results")}
    rows = {("paper", ""): [printed[f"MAE (alpha = {a}, beta = 0.5)"] for a in FORMS["mean"]]}
    for form, runs in FORMS.items():
        for preset in ("quick", "laptop"):
            configs = [experiment.config(preset, "mnist") for experiment in runs.values()]
            rows[f"`{form}`", preset] = [ours.get(config, "not run") for config in configs]
    heads = ["form", "preset", *(f"α = {alpha:g}" for alpha in FORMS["mean"])]
    return _markdown(pd.DataFrame([[*key, *mpd] for key, mpd in rows.items()], columns=heads))


def timings() -> str:
    """Minutes that the training of the recorded runs took."""
    runs = [(r.config, r.provenance["train_seconds"] / 60) for r in collect(ROOT / "results")]
    rows = [(config.preset, config.data.name, minutes) for config, minutes in runs]
    minutes = pd.DataFrame(rows, columns=["preset", "data set", "t"]).groupby(
        ["preset", "data set"]
    )
    return _markdown(minutes["t"].agg(["count", "min", "median", "max"]).round(1).reset_index())


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
    """benchmarks/equal-time.json: the validation ELBO at the end of each training."""
    content = json.loads((ROOT / "benchmarks" / "equal-time.json").read_text())
    rows = [(name, curve[-1]["step"], curve[-1]["val_elbo"]) for name, curve in
            content["rows"].items()]  # fmt: skip
    heads = ["training", "steps", "L_elbo on 1,000 validation images (nats)"]
    return _markdown(pd.DataFrame(rows, columns=heads).round(2))


def benchmarks() -> str:
    """benchmarks/results-cpu.json: medians in seconds, then what they were measured on."""
    content = json.loads((ROOT / "benchmarks" / "results-cpu.json").read_text())
    rows = pd.DataFrame(content["rows"])[["row", "medians", "ratio", "target", "note"]].fillna("")
    rows["medians"] = [
        "; ".join(f"{side}: {float(f'{s:.3g}'):g}" for side, s in medians.items())
        for medians in rows["medians"]
    ]
    rows["ratio"] = [f"{ratio:.3g}" if ratio else "" for ratio in rows["ratio"]]
    about = ("cpu", "cpu_capability", "threads", "torch", "commit")
    where = ", ".join(f"{name} {content['provenance'][name]}" for name in about)
    return f"{_markdown(rows)}\n\nMedians are in seconds. Measured on: {where}."


def soak() -> str:
    """benchmarks/soak.json: how many tries of each fault were survived."""
    path = ROOT / "benchmarks" / "soak.json"
    rows = pd.read_json(path).eval("lost = tries - survived") if path.exists() else None
    return "This has not been measured yet." if rows is None else _markdown(rows)


def _markdown(frame: pd.DataFrame) -> str:
    return frame.astype(str).to_markdown(index=False, disable_numparse=True)
