"""The blocks of docs/reproduction.md: every number and verdict in them is made from results/."""

import json
from collections import Counter
from dataclasses import asdict
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from maelib import experiments
from maelib.config import PARTS, PRESETS
from maelib.data import STAND_INS
from maelib.experiments import FORMS, MAE, PAPER, VLAE, Experiment, experiment_of, images_of
from maelib.measure.estimate import estimate
from maelib.report import build, claims, paper, tables, zoo
from maelib.report.evidence import linear_kl
from maelib.runs.record import Record, collect

ROOT = Path(__file__).parents[1]
ORDER = list(PRESETS)
NOTHING = "There is no result yet."
ALONE = ("channels", "schedule", "epochs", "lr", "ema", "batch_size")  # possible reasons
NAMES = {"elbo": "L_elbo"}
THREES = "test images in threes, the original, MAE's reconstruction and VLAE's; "
SHOWN = {  # in the pictures
    "figure2": THREES + "each pixel has its more probable value.",
    "figure2_sampled": THREES + "each pixel is drawn from its distribution.",
    "figure3": "images drawn from MAE's prior.",
    "figure4": THREES + "decoded greedily. Right: images from MAE's prior.",
    "figure4_sampled": THREES + "each pixel is drawn. Right: images from MAE's prior.",
}
MODELS = {"MAE(1, 0.5)": claims.BEST, "VLAE": VLAE, "ResNet VAE": experiments.VAE}


@cache
def records() -> list[Record]:
    """Every committed record of the paper's list, the stand-ins' left out."""
    found = [r for r in collect(ROOT / "results") if r.config.data.name not in STAND_INS.values()]
    return [r for r in found if experiment_of(r.config) in PAPER]


def of(images: str, preset: str | None) -> list[Record]:
    """The records of a data set of the paper, or what takes its place, at a preset."""
    return [r for r in records() if r.config.preset == preset and _images(r) == images]


def chosen(images: str) -> str | None:
    """The preset with most models of the data set, among those at which a model has several seeds.

    Of two with as many it is the larger. Where no model has several seeds, any preset counts.
    """
    seeds = _seeds(images)
    several = {preset for (preset, _), count in seeds.items() if count > 1}
    models = Counter(preset for preset, _ in seeds)
    order = [preset for preset in ORDER if preset in (several or models)]
    return max(reversed(order), key=lambda preset: models[preset], default=None)


def larger(images: str) -> list[str]:
    """The presets above that of the data set's tables which have several seeds of a model."""
    seeds = _seeds(images)
    base = ORDER.index(chosen(images)) if seeds else len(ORDER)
    return [p for p in ORDER[base + 1 :] if any(seeds[key] > 1 for key in seeds if key[0] == p)]


def _seeds(images: str) -> Counter[tuple[str, str]]:
    """How many seeds each model of the data set has at each preset, by preset and label."""
    return Counter((r.config.preset, r.config.label()) for r in records() if _images(r) == images)


def folder(preset: str) -> Path:
    """Where the tables and figures of a preset are."""
    return build.folder_for(preset, "mnist", ROOT, records())


def runs() -> str:
    """How many models of the list are finished, by data set and preset."""
    seeds = Counter((r.config.data.name, r.config.preset, r.config.label()) for r in records())
    rows = []
    for name, preset in sorted({key[:2] for key in seeds}, key=lambda k: (k[0], ORDER.index(k[1]))):
        counts = [n for key, n in seeds.items() if key[:2] == (name, preset)]
        listed = sum(e.images == images_of(name) for e in PAPER)
        rows.append([name, preset, f"{len(counts)} of {listed}", max(counts)])
    return markdown(pd.DataFrame(rows, columns=["data set", "preset", "models", "seeds"]))


def sheet(name: str, images: str, preset: str | None = None) -> str:
    """figures/NAME.md of the data set's or the given preset: a table and its caption."""
    preset = preset or chosen(images)
    path = folder(preset) / f"{name}.md" if preset else ROOT / "nothing"
    return path.read_text(encoding="utf-8").strip() if path.exists() else NOTHING


def larger_sheet(name: str, images: str) -> str:
    """``sheet`` at each of the ``larger`` presets, without the rows that have not been run."""
    parts = []
    for preset in larger(images):
        table, caption = sheet(name, images, preset).split("\n\n", 1)
        rows = [
            line
            for line in table.splitlines()
            if not any(f" {words} " in line for words in (tables.NOT_RUN, claims.TOO_FEW))
        ]
        parts.append("\n".join(rows) + f"\n\n{caption}")
    return "\n\n".join(parts) or NOTHING


def larger_picture(name: str, words: str, images: str) -> str:
    """``picture`` at each of the ``larger`` presets."""
    return "\n\n".join(picture(name, words, images, p) for p in larger(images)) or NOTHING


def main_rows(names: list[str]) -> str:
    """Rows of Table 4 at the largest preset that has all of them, and how they were measured.

    Below are those of the rows that larger presets have, with the name of their preset.
    """
    made = [preset for preset in ORDER if of("mnist", preset)]
    whole = [preset for preset in made if not _not_run(beside_paper(preset, names)).any()]
    if not whole:
        return NOTHING
    rows = [beside_paper(whole[-1], names)]
    captions = [tables.caption(of("mnist", whole[-1]))]
    for preset in made[made.index(whole[-1]) + 1 :]:
        larger = beside_paper(preset, names)
        larger = larger[~_not_run(larger)]
        rows.append(larger.assign(model=larger["model"] + f", preset {preset}"))
        captions.append(tables.caption(of("mnist", preset)))
    return "\n\n".join([markdown(pd.concat(rows)), *captions])


def beside_paper(preset: str, names: list[str]) -> pd.DataFrame:
    """Rows of Table 4: the paper's value / ours."""
    rows = pd.read_csv(folder(preset) / "table4.csv", index_col="model", dtype=str).loc[names]
    both = {m: rows[f"{m} paper"] + " / " + rows[f"{m} ours"] for m in ("kl", "mpd", "std", "nll")}
    return pd.DataFrame(both).rename(columns=str.upper).reset_index()


def _not_run(rows: pd.DataFrame) -> pd.Series:
    return rows["NLL"].str.endswith(tables.NOT_RUN)


def claim_counts() -> str:
    """Where each claim is made, how often the paper's own values have it, and our verdicts."""
    if chosen("mnist") is None:
        return NOTHING
    return markdown(tables.claim_table(judged("mnist") + judged("cifar10")))


def other_claims(images: str) -> str:
    """Claim (vi) at the preset of its data set, if that is not MNIST's."""
    if (preset := chosen(images)) in (None, chosen("mnist")):
        return ""
    text = f"{tables.caption(of(images, preset))} {tables.verdict_note(judged(images))}"
    return f"{markdown(tables.verdict_table(judged(images)))}\n\n{tables.in_markdown(text)}"


def judged(images: str) -> list[claims.Verdict]:
    """The verdicts on the claims about a data set, at its own preset."""
    found = claims.verdicts(of(images, chosen(images)))
    return [v for v in found if v.claim.larger.images == images]


def picture(name: str, words: str, images: str = "mnist", preset: str | None = None) -> str:
    """A figure of the data set's or the given preset, if it has been drawn."""
    preset = preset or chosen(images)
    path = folder(preset) / f"{name}.png" if preset else ROOT / "nothing"
    return f"![{words}](../{path.relative_to(ROOT)})" if path.exists() else NOTHING


def plane() -> str:
    """RE, KL and MPD of every model, and which models lie above the law of the linear case."""
    preset = [chosen("mnist"), *larger("mnist")][-1]
    words = "RE against KL with lines of equal ELBO; KL against MPD with the law of the linear case"
    found = [r for r in collect(ROOT / "results") if r.config.data.name == "mnist"]
    drawn = [r for r in found if r.measurements["mpd"] >= 1]
    above = Counter(
        f"`{r.config.objective.name}`"
        for r in drawn
        if r.measurements["kl"] > linear_kl(r.measurements["mpd"], r.config.network.latent)
    )
    names = ", ".join(f"{name} ({count})" for name, count in above.most_common())
    text = f"{sum(above.values())} of {len(drawn)} trained models lie above the curve: {names}."
    return f"{picture('plane', words, preset=preset)}\n\n{text}"


def controls() -> str:
    """KL, NLL and clusters of the VLAE with other free bits and another prior, and of MAE's."""
    found = zoo.fullest(collect(ROOT / "results"))
    names = {"vlae-fb0": "VLAE without free bits", "vlae": "VLAE, free bits 7.84",
             "vlae-fb12": "VLAE, free bits 12", "mae-a0.5-b0.5": "MAE(0.5, 0.5)",
             "mae-a1-b0.5": "MAE(1, 0.5)"}  # fmt: skip
    measures = ("kl", "nll", "kmeans_10", "kmeans_20", "kmeans_30", "knn_all")
    rows = []
    for end, prior in (("", "flow"), ("-normal", "N(0, I)")):
        for label, name in names.items():
            runs = [r.measurements for r in found if r.config.label() == label + end]
            if runs:
                cells = {m: tables.mean([of[m] for of in runs]) for m in measures}
                rows.append({"model": name, "prior": prior, "seeds": len(runs)} | cells)
    note = "KL and NLL in nats, the others are accuracies in per cent."
    return f"{markdown(pd.DataFrame(rows))}\n\nPreset: {found[0].config.preset}. {note}"


def remedies() -> str:
    """The table and the picture of the zoo, at the preset at which most remedies have a run."""
    found = zoo.fullest(collect(ROOT / "results"))
    if zoo.trained(found) < zoo.ENOUGH:
        return NOTHING
    preset, words = found[0].config.preset, "RE against KL, and NLL against I_q, of each remedy"
    shown = picture("zoo_plane", words, preset=preset)
    return f"{shown}\n\n{sheet('zoo_table', 'mnist', preset)}"


def remedy_options() -> str:
    """What each remedy of the zoo is tried with."""
    return markdown(zoo.options())


def pictures() -> str:
    """Figures 2, 3 and 4 of every data set, where they have been drawn."""
    found = []
    for images, names in experiments.IMAGES.items():
        for name in [name for name in names if name not in STAND_INS.values()]:
            for kind in ("figure2", "figure2_sampled", "figure3", "figure4", "figure4_sampled"):
                number, _, sampled = kind.partition("_")
                file = "_".join(filter(None, [number, name, sampled]))
                words = f"Figure {number[-1]}, {name}" + (", sampled pixels" if sampled else "")
                if (shown := picture(file, words, images)) != NOTHING:
                    found.append(f"{words}, preset {chosen(images)}: {SHOWN[kind]}\n\n{shown}")
    return "\n\n".join(found) or NOTHING


def forms() -> str:
    """MPD on MNIST at beta = 0.5: the paper's, then ours by form of L_diverse and preset."""
    rows = {("paper", ""): [f"{printed(MAE[a, 0.5], 'mpd'):.2f}" for a in FORMS["mean"]]}
    for form, members in FORMS.items():
        for preset in ORDER:
            ours = [mean(e, preset, "mpd") for e in members.values()]
            if any(value is not None for value in ours):
                cells = ["not run" if value is None else f"{value:.2f}" for value in ours]
                rows[f"`{form}`", preset] = cells
    heads = ["form", "preset", *(f"α = {alpha:g}" for alpha in FORMS["mean"])]
    return _table([[*key, *cells] for key, cells in rows.items()], heads)


def differences() -> str:
    """Our values minus those of Table 4, and in how many rows each measure is larger."""
    if (preset := chosen("mnist")) is None:
        return NOTHING
    rows = []
    for e in experiments.MNIST:
        ours = {m: mean(e, preset, m) for m in tables.MEASURES}
        if ours["nll"] is not None:
            gaps = {m: value - printed(e, m) for m, value in ours.items()}
            rows.append({"model": tables.row_name(paper.row("table4", e.row))} | gaps)
    found = pd.DataFrame(rows).set_index("model")
    said = [
        f"- {NAMES.get(m, m.upper())}: larger than the paper's in {int((found[m] > 0).sum())} of "
        f"{len(found)} models; ours minus the paper's is {found[m].min():+.2f} to "
        f"{found[m].max():+.2f} nats."
        for m in tables.MEASURES
    ]
    table = markdown(found.map("{:+.2f}".format).reset_index())
    return "\n".join([table, "", f"Preset: {preset}.", "", *said])


def reasons() -> str:
    """What the results say about each possible reason for a difference from Table 4."""
    if (preset := chosen("mnist")) is None:
        return NOTHING
    rows = [
        ["size of the network and length of training together", _by_preset()],
        ["width, length, schedule and rate, in trainings of two to six epochs", _equal_time()],
        *_alone(),
        ["free bits, α = 0.5, β = 0.1", _free_bits(preset)],
        ["form of L_diverse: MPD at α = 2 over that at α = 1, β = 0.5", _form_ratios(preset)],
        ["number k of importance samples", _few_samples([preset, *larger("mnist")])],
        ["chance: standard deviation of the NLL over seeds", _seed_noise(preset)],
    ]
    return _table(rows, ["possible reason", "what the results show"])


def importance_samples() -> str:
    """benchmarks/importance-samples.json: the NLL by k, and the models' NLL less the VLAE's."""
    content = json.loads((ROOT / "benchmarks" / "importance-samples.json").read_text())
    models = {each["label"]: each for each in content["models"].values()}
    base, rows = models[VLAE.label]["nll"], []
    for k in base:
        row = {"k": f"{int(k):,}"} | {n: f"{np.mean(m['nll'][k]):.2f}" for n, m in models.items()}
        for name in (each for each in models if each != VLAE.label):
            change = estimate([a - b for a, b in zip(models[name]["nll"][k], base[k], strict=True)])
            row[f"{name} - {VLAE.label}"] = f"{change.mean:+.2f} ± {change.error:.2f}"
        rows.append(row)
    one = models[VLAE.label]
    about = ", ".join(dict.fromkeys(f"commit {m['commit']}" for m in models.values()))
    return (
        f"{markdown(pd.DataFrame(rows))}\n\nPretrained models of {one['preset']}, one seed each, "
        f"{one['images']} test images in which each class has its share, {one['precision']}. "
        f"±: standard error over these images. {about}, {one['hardware']}."
    )


def missing() -> str:
    """The models of the list that have not been run, with the commands that train them."""
    commands = []
    for images in experiments.IMAGES:
        preset, name = chosen(images) or "laptop", images
        found = [r for r in of(images, preset) if r.config.data.name == name]
        there = {experiment_of(r.config) for r in found}
        for e in (e for e in PAPER if e.images == images and e not in there):
            options = [f"--{key.replace('_', '-')} {value}" for key, value in e.options.items()]
            given = ["maelib train", f"--preset {preset}", f"--dataset {name}"]
            commands.append(" ".join([*given, f"--objective {e.objective}", *options]))
    return "\n".join(["```", *commands, "```"]) if commands else "None."


def mean(e: Experiment, preset: str, measure: str) -> float | None:
    """The mean over seeds of a measure; None without a run."""
    ours = [r.measurements[measure] for r in of(e.images, preset) if experiment_of(r.config) is e]
    return float(np.mean(ours)) if ours else None


def printed(e: Experiment, measure: str) -> float:
    """The value of Table 4."""
    return paper.row("table4", e.row)[measure]


def markdown(frame: pd.DataFrame) -> str:
    """A table in which text is shown as it is."""
    cells = frame.astype(str).map(tables.in_markdown)
    return cells.to_markdown(index=False, disable_numparse=True)


def _table(rows: list[list], heads: list[str]) -> str:
    """A table whose cells may hold Markdown of ours."""
    frame = pd.DataFrame(rows, columns=heads)
    return frame.to_markdown(index=False, disable_numparse=True)


def _images(record: Record) -> str:
    return images_of(record.config.data.name)


def _by_preset() -> str:
    said = []
    for name, e in MODELS.items():
        gaps = {p: mean(e, p, "nll") for p in ORDER}
        there = [f"{p} {v - printed(e, 'nll'):+.2f}" for p, v in gaps.items() if v is not None]
        said.append(f"{name}: {', '.join(there) or 'not run'}")
    return f"NLL minus the paper's, by preset. {'. '.join(said)}."


def _equal_time() -> str:
    """benchmarks/equal-time.json: the ELBO at the end of each training less that of the first."""
    content = json.loads((ROOT / "benchmarks" / "equal-time.json").read_text())
    curves = {name: row["history"] for name, row in content["rows"].items()}
    ends = {name: curve[-1]["val_elbo"] for name, curve in curves.items() if curve}
    first, *others = ends
    said = ", ".join(
        f"{name.replace(',', ' /')} {ends[name] - ends[first]:+.2f}" for name in others
    )
    return f"validation L_elbo of MAE(1, 0.5) minus that of {first.replace(',', ' /')}: {said} nats"


def _alone() -> list[list[str]]:
    """A row for each of ``ALONE`` in which alone two runs on MNIST differ; one for the others."""
    flat = [(r, _settings(r)) for r in collect(ROOT / "results") if _images(r) == "mnist"]
    said: dict[str, list[str]] = {option: [] for option in ALONE}
    for (a, s), (b, t) in combinations(flat, 2):
        differing = [key for key in {**s, **t} if s.get(key) != t.get(key)]
        if len(differing) == 1 and (option := differing[0]) in said:
            both = (
                f"NLL {r.measurements['nll']:.2f} with {x[option]}" for r, x in ((a, s), (b, t))
            )
            said[option].append(f"{a.config.label()}: {', '.join(both)}")
    rows = [[f"`{option}` alone", "; ".join(pairs)] for option, pairs in said.items() if pairs]
    others = ", ".join(f"`{option}`" for option, pairs in said.items() if not pairs)
    why = (
        "not investigated: no two runs in results/ differ in one of these alone; "
        "some of the trainings in the row above do"
    )
    return [*rows, *([[f"each alone: {others}", why]] if others else [])]


def _settings(record: Record) -> dict:
    parts = {name: asdict(getattr(record.config, name)) for name in PARTS if name != "evaluation"}
    flat = {key: value for part in parts.values() for key, value in part.items() if key != "name"}
    return {**flat, "data": record.config.data.name, "objective": record.config.objective.name,
            "seed": record.config.seed}  # fmt: skip


def _free_bits(preset: str) -> str:
    runs = [
        {r.config.seed: r for r in of("mnist", preset) if experiment_of(r.config) is e}
        for e in (experiments.MAE_FREE_BITS, MAE[0.5, 0.1])
    ]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if not seeds:
        return "not investigated: no seed has both models"
    gaps = {
        m: np.mean([runs[0][s].measurements[m] - runs[1][s].measurements[m] for s in seeds])
        for m in ("kl", "mpd", "nll")
    }
    said = ", ".join(f"{m.upper()} {gap:+.2f}" for m, gap in gaps.items())
    return (
        f"with free bits minus without, from {len(seeds)} seed{'s' * (len(seeds) > 1)}: {said} nats"
    )


def _form_ratios(preset: str) -> str:
    said = [f"paper {printed(MAE[2.0, 0.5], 'mpd') / printed(MAE[1.0, 0.5], 'mpd'):.2f}"]
    for form, members in FORMS.items():
        both = [mean(members[alpha], preset, "mpd") for alpha in (2.0, 1.0)]
        said.append(f"{form} " + ("not run" if None in both else f"{both[0] / both[1]:.2f}"))
    return ", ".join(said)


def _few_samples(presets: list[str]) -> str:
    changes: dict[tuple[int, int], dict[str, list[float]]] = {}
    for r in (each for preset in presets for each in of("mnist", preset)):
        if "nll_all" in r.per_image:
            many, few = r.per_image["nll"], r.per_image["nll_all"]
            models = changes.setdefault((r.evaluation["nll_k_all"], r.evaluation["nll_k"]), {})
            change = float(np.mean(many) - np.mean(few[: len(many)]))
            models.setdefault(r.config.label(), []).append(change)
    said = [
        f"from k = {few} to k = {many} the NLL changes by "
        + f"{means.max():+.2f} ({means.idxmax()}) to {means.min():+.2f} ({means.idxmin()}) nats"
        for (few, many), models in sorted(changes.items())
        for means in [pd.Series({label: np.mean(v) for label, v in models.items()})]
    ]
    more = json.loads((ROOT / "benchmarks" / "importance-samples.json").read_text())["models"]
    largest = {(m["preset"], max(map(int, m["nll"]))) for m in more.values()}
    said += [f"models of {at} were also measured with k = {k}" for at, k in sorted(largest)]
    return "; ".join(said) if changes else "not investigated: one k for each run"


def _seed_noise(preset: str) -> str:
    nlls = {}
    for r in of("mnist", preset):
        nlls.setdefault(r.config.label(), []).append(r.measurements["nll"])
    spread = {label: float(np.std(v, ddof=1)) for label, v in nlls.items() if len(v) > 1}
    said = [f"{label} {value:.2f}" for label, value in sorted(spread.items())]
    return ", ".join(said) or "not investigated: one seed for each model"
