"""How long Snakemake takes to plan a grid of releases: jobs, and seconds of a dry-run.

.venv/bin/python benchmarks/dag.py [--cells 40 80 160 280] [--datasets 1]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
METHODS, SEEDS = ["privimage", "random", "pdp", "scratch"], [0, 1, 2, 3, 4]


def grid(num_cells: int, datasets: int) -> dict:
    """A configuration, merged over the toy's, of about so many releases of each of so many sets."""
    epsilons = [1.0 + step / 10 for step in range(max(1, num_cells // (len(METHODS) * len(SEEDS))))]
    row = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))["datasets"]["digits"]
    row |= yaml.safe_load((ROOT / "tests/toy.yaml").read_text(encoding="utf-8"))["datasets"]["digits"]
    names = [f"set{number}" for number in range(datasets)]
    run = {"datasets": names, "methods": METHODS, "seeds": SEEDS, "epsilons": epsilons}
    return {"run": run, "datasets": dict.fromkeys(names, row)}


def planned(config: dict) -> tuple[int, float]:
    """The jobs of a dry-run in an empty folder, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "grid.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "rules", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--directory", folder, "--configfile", str(ROOT / "tests/toy.yaml"), str(path)]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        return int(re.search(r"^total +(\d+)", done.stdout + done.stderr, re.MULTILINE)[1]), time.monotonic() - began


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[40, 80, 160, 280], help="releases of each set")
    parser.add_argument("--datasets", type=int, default=1, help="sets")
    args = parser.parse_args()
    print(f"{'sets':>5} {'releases':>9} {'jobs':>6} {'seconds':>8}")
    for cells in args.cells:
        jobs, seconds = planned(grid(cells, args.datasets))
        print(f"{args.datasets:5} {cells * args.datasets:9} {jobs:6} {seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
