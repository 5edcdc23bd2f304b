"""What needs what: runs -> their results -> tables and figures; and the tutorials, on their own.

snakemake --cores all --config preset=quick             # make what is missing
snakemake -n --config preset=laptop dataset=mnist       # show what is missing

A result's name holds its run's key (configuration, data digest, version of the training). So a result
that exists is a target that is met, whatever its time stamp, and rules for runs have no inputs.
Half-trained runs lie in runs/, which no rule declares: Snakemake deletes declared outputs first.
"""

import os
import shlex
import sys

import torch

from maelib.internal.paths import default_out_dir
from maelib.workflow import plan

PRESET = config.get("preset", "quick")
GROUP = config.get("group", "paper")
DATASET = plan.available(config.get("dataset", "auto"))
RUNS = plan.runs(PRESET, DATASET, GROUP)
SOURCES = sorted(str(path) for path in Path("maelib").rglob("*.py"))
PYTHON = shlex.quote(sys.executable)
PAPERMILL = (
    f"{PYTHON} -m papermill"
    " --kernel python3 --cwd notebooks --log-level ERROR --no-progress-bar"
)
TARGETS = plan.targets(PRESET, DATASET, GROUP)
READING, READ_FIRST = plan.representations(PRESET, DATASET, Path("."))
os.environ["TQDM_DISABLE"] = "1"  # no bars in executed notebooks


def all_cores(wildcards):
    """For what no other training may run beside."""
    return workflow.cores


def half_the_cores(wildcards):
    """Two runs side by side end sooner than one after the other; a GPU is for one at a time."""
    return workflow.cores if torch.cuda.is_available() else max(1, workflow.cores // 2)


def longest_first(wildcards):
    """Colour runs before the others, and runs before the tutorials, so that no core is idle at the end."""
    return 2 if RUNS[wildcards.name].notebook == "07_cifar10_mae" else 1


wildcard_constraints:
    name="[^/]+",


localrules:
    reproduce,
    report,
    data,
    tutorial,


rule reproduce:
    input:
        TARGETS,
    log:
        notebook=f"build/{PRESET}/{DATASET}-08_tables_and_figures.ipynb",
        text=f"build/{PRESET}/{DATASET}-08_tables_and_figures.log",
    message:
        f"tables and figures of preset {PRESET}"
    shell:
        "{PAPERMILL} notebooks/08_tables_and_figures.ipynb {log.notebook:q}"
        " -p preset {PRESET} -p dataset {DATASET} -p write True >{log.text:q} 2>&1"


# Of the results there are, whichever are missing.
use rule reproduce as report with:
    input:
        [],


rule run:
    output:
        f"results/{PRESET}/{{name}}.json",
    log:
        notebook=f"build/{PRESET}/{{name}}.ipynb",
        text=f"build/{PRESET}/{{name}}.log",
    params:
        job=lambda wildcards: RUNS[wildcards.name],
        record=lambda wildcards: default_out_dir() / PRESET / wildcards.name / "result.json",
    threads: half_the_cores
    priority: longest_first
    message:
        "run {wildcards.name}"
    shell:
        "{PAPERMILL} notebooks/{params.job.notebook}.ipynb {log.notebook:q} {params.job.options}"
        " >{log.text:q} 2>&1"
        " && cp {params.record:q} {output:q}.part && mv {output:q}.part {output:q}"


# Only for a damaged data set, which this names.
rule data:
    output:
        touch("build/data/{name}.intact"),
    log:
        "build/data/{name}.log",
    message:
        "data set {wildcards.name}"
    shell:
        "{PYTHON} -m maelib data {wildcards.name} >{log:q} 2>&1"


rule representations:
    input:
        ancient([f"results/{PRESET}/{name}.json" for name in READ_FIRST]),
        f"notebooks/{READING.notebook}.ipynb",
        SOURCES,
    output:
        touch(f"build/{PRESET}/{DATASET}-{READING.notebook}.done"),
    log:
        notebook=f"build/{PRESET}/{DATASET}-{READING.notebook}.ipynb",
        text=f"build/{PRESET}/{DATASET}-{READING.notebook}.log",
    threads: all_cores
    message:
        "notebook 06_representations"
    shell:
        "{PAPERMILL} notebooks/{READING.notebook}.ipynb {log.notebook:q} {READING.options}"
        " >{log.text:q} 2>&1"


rule tutorial:
    input:
        "notebooks/{name}.ipynb",
        SOURCES,
    output:
        touch("build/tutorials/{name}.done"),
    log:
        notebook="build/tutorials/{name}.ipynb",
        text="build/tutorials/{name}.log",
    message:
        "notebook {wildcards.name}"
    shell:
        "{PAPERMILL} {input[0]:q} {log.notebook:q} >{log.text:q} 2>&1"
