"""Time `pipeline verify --all` on a large cache, compared with `md5sum`.

    python -m benchmarks.verify [--repeats 5]

Checks the cache of the experiment smoke, and the same cache with an additional gigabyte of objects: the
difference gives the speed of the check. Writes verify.json and verify.md next to this file.
"""

import argparse
import hashlib
import shutil
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import Ratio, Run, measure, prepare_repository, render, run, save, summarise

OBJECTS, MEGABYTES = 256, 4  # of each object
SMALL, LARGE = "pipeline verify --all, a small cache", "pipeline verify --all, a gigabyte more"
PEER = "md5sum of the same files, one after the other"
RATIOS = (Ratio("verify, a gigabyte more, against md5sum", LARGE, PEER),)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verify", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        smoke = "defaults:\n  - override /experiment: smoke\n"
        place = prepare_repository(Path(folder) / "repository", smoke)
        run(["dvc", "repro"], place)
        large = Path(folder) / "large"
        shutil.copytree(place, large, symlinks=True)
        objects = large / ".dvc" / "cache" / "files" / "md5"
        fill(objects)
        verify = ["pipeline", "verify", "--all"]
        peer = ["find", str(objects), "-type", "f", "-exec", "md5sum", "{}", "+"]
        runs: dict[str, list[Run]] = {}
        for _ in range(repeats):
            for name, command, where in ((SMALL, verify, place), (LARGE, verify, large), (PEER, peer, large)):
                measure(runs, name, command, where)
    more = median(one.wall - other.wall for one, other in zip(runs[LARGE], runs[SMALL], strict=True))
    rate = OBJECTS * MEGABYTES / more
    results = summarise(runs, repeats, RATIOS) | {"megabytes_per_second": rate}
    save("verify", results, f"{render(results)}\n{rate:,.0f} MB a second.\n")


def fill(objects: Path) -> None:
    """Add objects of random bytes to a cache, under the names that DVC gives them."""
    rng = np.random.default_rng(0)
    for _ in range(OBJECTS):
        content = rng.bytes(MEGABYTES * 1_000_000)
        digest = hashlib.md5(content).hexdigest()  # noqa: S324 (DVC's)
        path = objects / digest[:2] / digest[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    main()
