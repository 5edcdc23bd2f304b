"""How fast training, sampling and evaluation are, beside plain reference implementations.

python benchmarks/bench.py --json benchmarks/results-cpu.json     # all rows, paper-size networks
python benchmarks/bench.py --rows train pixels                    # some of them
python benchmarks/bench.py --quick                                # tiny networks: does it run?

Seconds are medians of interleaved runs in one process, after a warm-up; the JSON has every run.
Reference: our own code, eager float32 without TF32, contiguous tensors, a full forward pass for
each sampled pixel, one importance sample at a time. Where a part of the work is timed and scaled
to the whole, the note says so. The networks are the paper's for MNIST and CIFAR-10, the images
scikit-learn's digits and photographs, of the same sizes: no time depends on what they show. The
row ``nll-precision`` is about a trained model's error, and so takes MNIST where it is at hand.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from growth_rows import growth, picture
from sampling_rows import colour, flow, nll, nll_precision, pixels, start
from timing import HEADER, Row, duration, markdown, provenance, write
from training_rows import busy, curve, floor, instructions, pairs, remedies, train
from workload import Bench

from maelib.runs.run import pick_device

ROWS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "train": train,
    "remedies": remedies,
    "curve": curve,
    "pixels": pixels,
    "colour": colour,
    "nll": nll,
    "nll-precision": nll_precision,
    "flow": flow,
    "pairs": pairs,
    "start": start,
    "growth": growth,
    "floor": floor,
    "busy": busy,
    "instructions": instructions,
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write; the JSON is written anew after every row."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = options.add_argument
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    add("--quick", action="store_true", help="tiny networks: does it run?")
    add("--device", default="auto", help="auto, cpu or cuda (default: %(default)s)")
    add("--json", type=Path, help="write everything here as well")
    chosen = options.parse_args(arguments)
    b = Bench(pick_device(chosen.device), chosen.quick)
    about = provenance(b.device) | {"quick": b.quick}
    found: list[Row] = []
    for name in chosen.rows:
        for row in ROWS[name](b):
            print(f"{name}: {row.row}", flush=True)
            found.append(row)
            if chosen.json:
                write(chosen.json, about, found)
    if chosen.json and any("grows" in row.more for row in found):
        picture(found).savefig(chosen.json.with_suffix(".png"), dpi=100)
    print(*tables(found), json.dumps(about), sep="\n\n")


def tables(rows: list[Row]) -> Iterator[str]:
    """One table of all comparisons, then a small one for each series."""
    yield markdown(HEADER, [row.cells() for row in rows if not row.is_series])
    for row in (row for row in rows if row.is_series):
        cells = [(side, duration(row.seconds(side))) for side in row.timings]
        yield markdown((row.row, "seconds"), cells)


if __name__ == "__main__":
    main()
