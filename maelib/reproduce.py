"""``make reproduce``: has Snakemake make what is missing, then names what failed.

python -m maelib.reproduce --preset quick          # what make reproduce does
python -m maelib.reproduce --preset quick -n       # what is missing; Snakemake's own options work
python -m maelib.reproduce --preset paper --profile profiles/slurm
"""

import argparse
import fcntl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maelib.paths import project_root

DRY = {"-n", "--dry-run", "--dryrun"}


def main(arguments: list[str] | None = None) -> int:
    """Run everything; what failed is named at the end. 0 only if nothing did."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw, allow_abbrev=False)
    presets = "smoke, quick, laptop or paper (default: %(default)s)"
    parser.add_argument("--preset", default="quick", help=presets)
    parser.add_argument("--dataset", default="auto", help="auto, mnist or digits")
    options, more = parser.parse_known_args(arguments)
    try:
        return _reproduce(options.preset, options.dataset, more, project_root())
    except OSError as problem:
        print(f"maelib: error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("maelib: interrupted; the same command continues.", file=sys.stderr)
        return 130


def _reproduce(preset: str, dataset: str, more: list[str], root: Path) -> int:
    cores = [] if any(word.startswith("--profile") for word in more) else ["--cores", "all"]
    common = [*cores, *more, "--config", f"preset={preset}", f"dataset={dataset}"]
    with sole(root) as handle:
        unlock(root)
        status = _snakemake(common, root, handle)
        if status and not DRY & set(more):
            _snakemake(["report", "--quiet", "all", *common], root, handle)
    return status


def _snakemake(arguments: list[str], root: Path, handle: int) -> int:
    command = [sys.executable, "-m", "snakemake", *arguments]
    process = subprocess.Popen(command, cwd=root, pass_fds=(handle,))
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise


@contextmanager
def sole(root: Path) -> Iterator[int]:
    """A lock on the folder that dies with the last process that holds its file descriptor."""
    path = root / ".snakemake" / "reproduce.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise BlockingIOError(
                "another make reproduce is at work in this folder; wait for it or stop it."
            ) from problem
        yield file.fileno()


def unlock(root: Path) -> None:
    """Remove the lock that a killed Snakemake left; one started by hand that lives keeps its."""
    if not any(_is_snakemake_in(root, process) for process in _processes()):
        for lock in (root / ".snakemake" / "locks").glob("*.lock"):
            lock.unlink(missing_ok=True)


def _processes() -> Iterator:
    import psutil

    return psutil.process_iter(["cmdline", "cwd"])


def _is_snakemake_in(root: Path, process) -> bool:
    words = process.info["cmdline"] or []
    called = any(Path(word).name == "snakemake" for word in words[:4])
    return called and "--mode" not in words and process.info["cwd"] == str(root.resolve())


if __name__ == "__main__":
    sys.exit(main())
