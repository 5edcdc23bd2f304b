"""The command line. ``maelib --help`` lists the commands, ``maelib COMMAND --help`` its options.

maelib train --dataset mnist --preset quick --alpha 1.0 --beta 0.5
maelib train --dataset ~/my_pictures --preset quick
torchrun --nproc-per-node 4 -m maelib train --preset paper
maelib campaign --minutes 13 --preset short
maelib runs
maelib evaluate runs/quick/NAME --nll-k 256
maelib sample mnist-mae-a1-b0.5 --out samples.png
maelib encode ~/my_pictures --model mnist-mae-a1-b0.5 --out codes.npz
"""

import argparse
import sys

COMMANDS = {
    "train": "train (or find) a run and print its record",
    "campaign": "train as many of the paper's runs as fit into some minutes",
    "evaluate": "measure a finished run again",
    "sample": "draw images from a finished run",
    "encode": "write the codes of pictures",
    "reconstruct": "write pictures as a model decodes their codes",
    "export": "put a finished run's model into checkpoints/",
    "runs": "list the runs there are",
    "data": "find or download a data set and describe it",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status.

    It is 0, or 2 after one sentence on stderr that says what to change, 130 if the command was
    interrupted, and 141 if the program that reads its output has ended.
    """
    given = sys.argv[1:] if arguments is None else arguments
    options = vars(parser(given[0] if given else "").parse_args(given))
    from maelib import commands
    from maelib.internal.files import out_of_memory, silence
    from maelib.training.loop import Interrupted
    from maelib.training.state import TrainingError

    try:
        commands.run(options.pop("command"), options)
        print(end="", flush=True)  # also where there is no sys.stdout
    except BrokenPipeError:  # as of ``maelib data digits | head -1``
        silence(sys.stdout)
        return 141
    except (ValueError, OSError, TrainingError) as problem:
        print(f"maelib: error: {_sentence(problem)}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as problem:
        if not out_of_memory(problem):
            raise
        remedy = "use --device cpu, or give fewer images"
        print(f"maelib: error: out of memory; {remedy}.", file=sys.stderr)
        return 2
    except (Interrupted, KeyboardInterrupt) as problem:
        print(f"maelib: {str(problem) or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def _sentence(problem: Exception) -> str:
    """An error in words; the operating system's say which file is concerned."""
    if isinstance(problem, OSError) and problem.strerror:
        where = problem.filename or "a file"
        return f"{where} cannot be used ({problem.strerror}); correct this, or give another path."
    return str(problem)


def parser(command: str) -> argparse.ArgumentParser:
    """All commands, and the options of ``command``: those of the others take time to import."""
    about = "VAEs with mutual posterior-divergence regularisation."
    top = argparse.ArgumentParser(prog="maelib", description=about)
    commands = top.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, text in COMMANDS.items():
        added = commands.add_parser(name, help=text, description=text)
        if name == command:
            from maelib.commands import add_options

            add_options(name, added)
    return top
