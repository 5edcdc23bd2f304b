"""What needs what: runs -> their results -> tables and figures; and the lessons, on their own.

snakemake --cores all --config preset=quick             # make what is missing
snakemake -n --config preset=laptop dataset=mnist       # show what is missing

A result's name holds its run's key (configuration, data digest, protocol version). So a result
that exists is one that is wanted, whatever its time stamp, and rules for runs have no inputs.
Half-trained runs lie in runs/, which no rule declares: Snakemake deletes declared outputs first.
"""

import shlex
import sys

import torch

from maelib import data, workflow as nodes
from maelib.paths import default_out_dir

PRESET = config.get("preset", "quick")
DATASET = data.load(config.get("dataset", "auto")).name
RUNS = nodes.plan(PRESET, DATASET)
SOURCES = sorted(str(path) for path in Path("maelib").glob("*.py"))
PROGRESS = "" if sys.stderr.isatty() else "--no-progress-bar"
PAPERMILL = (
    f"{shlex.quote(sys.executable)} -m papermill"
    f" --kernel python3 --cwd notebooks --log-level ERROR {PROGRESS}"
)
TARGETS = nodes.targets(PRESET, DATASET)
READING, READ_FIRST = nodes.representations(PRESET, DATASET, Path("."))


def all_cores(wildcards):
    """For what no other training may run beside."""
    return workflow.cores


def half_the_cores(wildcards):
    """Two runs side by side end sooner than one after the other; a GPU is for one at a time."""
    return workflow.cores if torch.cuda.is_available() else max(1, workflow.cores // 2)


def longest_first(wildcards):
    """Colour runs before the others, and runs before the lessons, so that no core is idle at the end."""
    return 2 if RUNS[wildcards.name].notebook == "07_cifar10_mae" else 1


wildcard_constraints:
    name="[^/]+",


localrules:
    reproduce,
    report,
    lesson,


rule reproduce:
    input:
        TARGETS,
    log:
        notebook=f"build/{PRESET}/{DATASET}-08_tables_and_figures.ipynb",
    message:
        f"tables and figures of preset {PRESET}"
    run:
        missing = [Path(target).stem for target in TARGETS if not Path(target).exists()]
        try:
            shell(
                "{PAPERMILL} notebooks/08_tables_and_figures.ipynb {log:q}"
                " -p preset {PRESET} -p dataset {DATASET} -p write True"
            )
        finally:
            for name in missing:
                print(f"not finished: {name}; if it failed, its notebook is in build/")


# Of the results there are, whichever are missing.
use rule reproduce as report with:
    input:
        [],


rule run:
    output:
        f"results/{PRESET}/{{name}}.json",
    log:
        notebook=f"build/{PRESET}/{{name}}.ipynb",
    params:
        job=lambda wildcards: RUNS[wildcards.name],
        record=lambda wildcards: default_out_dir() / PRESET / wildcards.name / "result.json",
    threads: half_the_cores
    priority: longest_first
    message:
        "run {wildcards.name}"
    shell:
        "{PAPERMILL} notebooks/{params.job.notebook}.ipynb {log:q} {params.job.options}"
        " && cp {params.record:q} {output:q}.part && mv {output:q}.part {output:q}"


rule representations:
    input:
        ancient([f"results/{PRESET}/{name}.json" for name in READ_FIRST]),
        f"notebooks/{READING.notebook}.ipynb",
        SOURCES,
    output:
        touch(f"build/{PRESET}/{DATASET}-{READING.notebook}.done"),
    log:
        notebook=f"build/{PRESET}/{DATASET}-{READING.notebook}.ipynb",
    threads: all_cores
    message:
        "notebook 06_representations"
    shell:
        "{PAPERMILL} notebooks/{READING.notebook}.ipynb {log:q} {READING.options}"


rule lesson:
    input:
        "notebooks/{name}.ipynb",
        SOURCES,
    output:
        touch("build/lessons/{name}.done"),
    log:
        notebook="build/lessons/{name}.ipynb",
    message:
        "notebook {wildcards.name}"
    shell:
        "{PAPERMILL} {input[0]:q} {log:q}"
