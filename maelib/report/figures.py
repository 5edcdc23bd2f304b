"""Pictures of images, learning curves and the latent space."""

import math
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns
import torch
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from maelib.data.dataset import Dataset, as_input, unit_range
from maelib.divergences import closed_form_mpd
from maelib.experiments import ALPHAS, FORMS, Experiment
from maelib.internal import rng
from maelib.internal.files import digest, whole
from maelib.internal.shapes import Images, StoredImages
from maelib.measure.sampling import reconstruct, sample
from maelib.model import VAE
from maelib.report import COLOURS, paper
from maelib.report.claims import by_experiment
from maelib.runs.record import Record


def show_images(
    images: Images, columns: int, ax: Axes, title: str = "", rows: Sequence[str] = ()
) -> None:
    """A grid of images in 0 ... 1, ``columns`` to a row; grey ones as dark ink on white.

    ``rows`` are the names of the rows.
    """
    is_grey = images.shape[1] == 1
    grid = make_grid(images.cpu(), nrow=columns, pad_value=0.25 if is_grey else 1.0)
    picture = grid[0] if is_grey else grid.permute(1, 2, 0)
    ax.imshow(picture.numpy(), cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    ax.set(title=title, xticks=[], yticks=[])
    pitch = images.shape[2] + 2  # an image and the line between two
    ax.set_yticks([(row + 0.5) * pitch for row in range(len(rows))], rows)


def interleave(*sets: Images) -> Float[Tensor, "all channels h w"]:
    """First image of each set, then the second of each, and so on."""
    return torch.stack([images.cpu() for images in sets], 1).flatten(0, 1)


def learning_curves(*records: Record) -> Figure:
    """RE, KL and L_elbo of the validation images and a batch's MPD and STD, in nats, over epochs.

    Every objective has its colour; a preset that is not the first's is dashed. The horizontal line
    of a run, dotted or dash-dotted, is the MPD at which MAE's two terms alone would balance, given
    its STD / MPD.
    """
    panels = {"val_re": "RE", "val_kl": "KL", "val_elbo": "L_elbo", "mpd": "MPD", "std": "STD"}
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.2), layout="constrained")
    for record in records:
        config, colour = record.config, COLOURS.get(record.config.objective.name, "black")
        style, line = ("-o", ":") if config.preset == records[0].config.preset else ("--s", "-.")
        label = f"{config.label()}, {config.preset}"
        for key, ax in zip(panels, axes, strict=True):
            points = [(row["epoch"], row[key]) for row in record.history]
            ax.plot(*zip(*points, strict=True), style, ms=3, color=colour, label=label)
        if getattr(config.objective, "diverse", "pairwise") != "pairwise":
            level = _predicted(record, config.objective.diverse)
            if math.isfinite(level):
                axes[3].axhline(level, ls=line, color=colour, label=f"balance, {label}")
    for title, ax in zip(panels.values(), axes, strict=True):
        ax.set(title=title, xlabel="epoch")
    axes[0].set_ylabel("nats")
    named = axes[3].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=len(named[1]), fontsize=8)
    return figure


def posterior_map(mu: Float[Tensor, "n latent"], labels: Int64[Tensor, " n"], title: str) -> Figure:
    """Posterior means on their first two principal components, coloured by label."""
    from sklearn.decomposition import PCA

    pca = PCA(2, random_state=0)
    points = pca.fit_transform(mu.cpu().numpy())
    share = pca.explained_variance_ratio_
    figure, ax = plt.subplots(figsize=(7, 5.5), layout="constrained")
    hue = labels.cpu().numpy()
    sns.scatterplot(
        x=points[:, 0], y=points[:, 1], hue=hue, palette="tab10", s=12, linewidth=0, ax=ax
    )
    ax.set(title=title)
    ax.set_xlabel(f"first principal component ({share[0]:.0%} of the variance)")
    ax.set_ylabel(f"second principal component ({share[1]:.0%})")
    ax.legend(title="label", bbox_to_anchor=(1.01, 1), loc="upper left")
    return figure


def save(figure: Figure, stem: Path, *made_from: object) -> None:
    """``stem``.png and ``stem``.pdf, unless they are there and made from the same.

    A processor or a version of matplotlib changes the bytes of a picture that shows the same. So
    the picture says what it was made from (``made_from`` and this module's code), and a picture of
    the same stays as it is.
    """
    source = digest([Path(__file__).read_text(encoding="utf-8"), *made_from])[:16]
    png = stem.with_suffix(".png")
    pdf = stem.with_suffix(".pdf")
    if not (pdf.exists() and png.exists() and _source_of(png) == source):
        with whole(pdf) as part:
            figure.savefig(part, format="pdf", metadata={"CreationDate": None})
        with whole(png) as part:
            about = {"Software": None, "Source": source}
            figure.savefig(part, format="png", dpi=150, metadata=about)
    plt.close(figure)


def _source_of(png: Path) -> str | None:
    with suppress(OSError), Image.open(png) as image:  # a damaged picture is drawn again
        return image.info.get("Source")


def figure1() -> Figure:
    """Figure 1: two sets of points with equal mean pairwise distance and unequal spread of it."""
    even, clumps = _point_sets()
    sets = {"(a) two clumps": clumps, "(b) even": even}
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
    for ax, points, title in zip(axes, sets.values(), sets, strict=True):
        distance = torch.pdist(points)
        ax.scatter(*points.T.tolist(), s=30)
        ax.set(title=f"{title}: mean distance {distance.mean():.2f}, STD {distance.std():.2f}",
               xlabel="z_1", ylabel="z_2", xlim=(-2, 2), ylim=(-2, 2), aspect="equal")  # fmt: skip
    return figure


def _point_sets(count: int = 24) -> tuple[Tensor, Tensor]:
    angle = torch.arange(count) * (2 * torch.pi / count)
    even = torch.stack([angle.cos(), angle.sin()], 1)
    noise = torch.randn(count, 2, generator=rng.generator(0, "figure 1")) * 0.12
    clumps = noise + torch.tensor([1.0, 0.0]) * (torch.arange(count) % 2 * 2 - 1)[:, None]
    return even, clumps * (torch.pdist(even).mean() / torch.pdist(clumps).mean())


def figure2(mae: VAE, vlae: VAE, dataset: Dataset, preset: str, greedy: bool = True) -> Figure:
    """Figure 2: test image, reconstruction by MAE, reconstruction by VLAE, in threes."""
    figure, ax = plt.subplots(figsize=(10, 5.6), layout="constrained")
    threes, how = _threes(mae, vlae, dataset.test.images[:48], greedy)
    show_images(threes, 18, ax, f"original | MAE | VLAE ({dataset.name}, preset {preset}, {how})")
    return figure


def figure3(mae: VAE, dataset: Dataset, preset: str) -> Figure:
    """Figure 3: samples from MAE."""
    figure, ax = plt.subplots(figsize=(6, 6.2), layout="constrained")
    images = sample(mae, 100, rng.generator(0, "figure 3", device=mae.device))
    show_images(images, 10, ax, f"samples from MAE ({dataset.name}, preset {preset})")
    return figure


def figure4(mae: VAE, vlae: VAE, dataset: Dataset, preset: str, greedy: bool = True) -> Figure:
    """Figure 4: colour images in threes as in Figure 2 (a), and samples from MAE (b)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5.4), layout="constrained")
    threes, how = _threes(mae, vlae, dataset.test.images[:24], greedy)
    images = sample(mae, 64, rng.generator(0, "figure 4", device=mae.device))
    where = f"{dataset.name}, preset {preset}"
    show_images(threes, 9, left, f"(a) original | MAE | VLAE ({where}, {how})")
    show_images(unit_range(images), 8, right, f"(b) samples from MAE ({where})")
    return figure


def _threes(
    mae: VAE, vlae: VAE, images: StoredImages, greedy: bool
) -> tuple[Float[Tensor, "all channels h w"], str]:
    """Each image with its reconstructions by MAE and by VLAE, and how they were decoded."""
    x = targets(images).to(mae.device)
    ours, theirs = (
        reconstruct(model, x, rng.generator(0, "figure 2", device=x.device), greedy)
        for model in (mae, vlae)
    )
    threes = unit_range(interleave(x, ours, theirs))
    return threes, "greedy decoding" if greedy else "sampled pixels"


def targets(images: StoredImages) -> Images:
    """What is reconstructed: grey images thresholded at one half, colour ones as they are."""
    return (images > 127).float() if images.shape[1] == 1 else as_input(images)


def forms_figure(records: list[Record]) -> Figure:
    """MPD against alpha under each form of L_diverse: measured, predicted, and the paper's.

    beta is 0.5 throughout. Predictions take STD / MPD from the measured run itself; at alpha = 1
    ``mean`` is ``tempered``. A form is drawn if a run at another alpha tells it apart.
    """
    figure, ax = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
    found = by_experiment(records)
    for form in FORMS:
        colour = COLOURS[form]
        runs = _runs_of_form(FORMS[form], found)
        label = form if runs else f"{form}: not run"
        mpds = [r.measurements["mpd"] for r in runs.values()]
        ax.plot(list(runs), mpds, "o-", color=colour, label=label)
        if form != "pairwise" and runs:
            ax.plot(list(runs), [_predicted(r, form) for r in runs.values()], "x--", color=colour,
                    label=f"{form}, closed form")  # fmt: skip
    rows = [row for row in paper.tables()["table4"]["rows"] if row.get("beta") == 0.5]
    ax.plot([r["alpha"] for r in rows], [r["mpd"] for r in rows], "ks:", label="paper, Table 4")
    ax.set_xticks(ALPHAS, [f"{alpha:g}" for alpha in ALPHAS])
    which = {f"{r.config.data.name}, preset {r.config.preset}" for r in records}
    ours = ", ".join(sorted(which)) or "not run"
    ax.set(xlabel="alpha", ylabel="MPD in nats")
    ax.set_title(f"MPD under the three forms of L_diverse, beta = 0.5\nours: {ours}")
    ax.legend(fontsize=8)
    return figure


def _runs_of_form(
    members: dict[float, Experiment], found: dict[Experiment, Record]
) -> dict[float, Record]:
    runs = {alpha: found[e] for alpha, e in members.items() if e in found}
    return runs if set(runs) - {1.0} else {}


def _predicted(record: Record, form: str) -> float:
    config, m = record.config, record.measurements
    alpha, beta = config.objective.alpha, config.objective.beta
    ratio = m["std"] / m["mpd"] if m["mpd"] else 0.0
    return closed_form_mpd(alpha, beta, ratio, config.network.latent, form)
