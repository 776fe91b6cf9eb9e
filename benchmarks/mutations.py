"""Insert small faults into the modules that determine results, and write docs/mutations.md: do tests notice?

`python -m benchmarks.mutations [MODULE ...]`: each mutant has one changed operator, constant, name, condition
or statement. Only the fast tests of its module run, in a process forked after importing the libraries.
Reasons that were written into the page by hand are kept.
"""

import argparse
import hashlib
import os
import re
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

from benchmarks.common import copy_working_tree
from benchmarks.mutants import REPOSITORY, mutants

PAGE = REPOSITORY / "docs" / "mutations.md"
# Each module, with its test files if these are not just tests/FOLDER/test_MODULE.py.
MODULES: dict[str, list[str]] = {
    "training/loop": [
        "training/test_loop.py",
        "training/test_loop_determinism.py",
        "training/test_loop_end.py",
        "training/test_fine_tuning.py",
    ],
    "training/checkpoint": [],
    "training/batches": [],
    "artifacts/processed": [],
    "evaluation/metrics": [],
    "evaluation/significance": [],
    "trials/run_cache": [],
    "tracking/record": [
        "tracking/test_record.py",
        "tracking/test_run.py",
        "tracking/test_run_failures.py",
        "tracking/test_evaluation_runs.py",
    ],
    "stages/compose": [],
    "config/params": [],
}


def tests_of(module: str, root: Path) -> list[str]:
    """Return the test files of a module."""
    folder, _, name = module.partition("/")
    paths = [root / "tests" / path for path in MODULES[module] or [f"{folder}/test_{name}.py"]]
    found = [str(path) for path in paths if path.exists()]
    if not found:
        sys.exit(f"error: {module} has no tests of its own.")
    return found


def survives(root: Path, module: str, text: str | None, seconds: float) -> bool:
    """Return whether the tests of `module` in the copy at `root` pass with `text` as its code, if given."""
    path = root / "src" / "pipeline" / f"{module}.py"
    original = path.read_text(encoding="utf-8")
    path.write_text(text or original, encoding="utf-8")
    child = os.fork()
    if not child:
        os.setsid()
        log = os.open(root.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.path.insert(0, str(root / "src"))
        os.environ["PYTHONPATH"] = str(root / "src")
        import pytest

        fast = ("-x", "-q", "-m", "not slow and not browser", f"--basetemp={root.parent / 'tmp'}")
        os._exit(pytest.main([*fast, *tests_of(module, root)]))
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return os.waitstatus_to_exitcode(status) == 0
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return False
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> None:
    """Run the mutants and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutations", description=__doc__)
    parser.add_argument("modules", nargs="*", choices=[*MODULES, []], metavar="MODULE")
    parser.add_argument("--sample", type=int, help="the largest number of mutants of each module")
    arguments = parser.parse_args()
    _preload()
    scores, survivors = _read_page()
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "copy"
        copy_working_tree(copied)
        os.chdir(copied)
        sys.dont_write_bytecode = True  # Bytecode of the same second would be taken as current.
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        for module in arguments.modules or MODULES:
            every = list(mutants(module))
            chosen = sorted(every, key=lambda mutant: hashlib.sha256(mutant.row.encode()).hexdigest())
            chosen = chosen[: arguments.sample]
            begin = time.monotonic()
            if not survives(copied, module, None, 600):
                sys.exit(
                    f"error: the tests of {module} fail unchanged:\n{(copied.parent / 'log').read_text()}"
                )
            limit = 5 * (time.monotonic() - begin) + 10
            alive = [mutant for mutant in chosen if survives(copied, module, mutant.source, limit)]
            print(f"{module}: {len(chosen) - len(alive)} of {len(chosen)} noticed", flush=True)
            scores[module] = (len(every), len(chosen), len(alive))
            reasons = {row: reason for row, reason in survivors.items() if row.startswith(f"`{module}`")}
            survivors = {row: reason for row, reason in survivors.items() if row not in reasons}
            survivors |= {mutant.row: reasons.get(mutant.row, "") for mutant in alive}
            PAGE.write_text(render(scores, survivors), encoding="utf-8")


def _preload() -> None:
    """Import the libraries that the tests would import for each mutant, but no module of the package."""
    for name in ("pytest", "dvc.repo", "mlflow", "scipy.stats", "sklearn.metrics"):
        import_module(name)
    sys.path.insert(0, str(REPOSITORY / "src"))
    from pipeline.environment import import_keras, quiet_tensorflow

    with quiet_tensorflow():
        import_keras()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pipeline", "benchmarks")]:
        del sys.modules[name]
    sys.path.remove(str(REPOSITORY / "src"))


_Scores = dict[str, tuple[int, int, int]]  # by module: mutants, of these tried, of these not noticed
_SCORE = re.compile(r"^\| `([a-z_/]+)` \| (\d+) \| (\d+) \| (\d+) \|", re.MULTILINE)
_SURVIVOR = re.compile(r"^\| (`[a-z_/]+` \| `.*` \| `.*` → `.*`(?: \(\d+\))?) \| (.*) \|$", re.MULTILINE)


def _read_page() -> tuple[_Scores, dict[str, str]]:
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    scores = {
        name: (int(every), int(tried), int(alive)) for name, every, tried, alive in _SCORE.findall(page)
    }
    return scores, dict(_SURVIVOR.findall(page))


def render(scores: _Scores, survivors: dict[str, str]) -> str:
    """Render the page: the scores, the weakest module first, and each mutant that no test noticed."""
    same = {row for row, reason in survivors.items() if reason.startswith("Same")}
    lines = []
    totals = [0, 0]
    for module, (every, tried, alive) in scores.items():
        equal = sum(row.startswith(f"`{module}`") for row in same)
        sensible = tried - equal
        totals = [totals[0] + sensible - (alive - equal), totals[1] + sensible]
        share = (sensible - (alive - equal)) / max(1, sensible)
        lines.append((share, f"| `{module}` | {every} | {tried} | {alive} | {equal} | {100 * share:.0f} % |"))
    waiting = [f"`{module}`" for module in MODULES if module not in scores]
    not_run = f"Not run yet: {', '.join(waiting)}.\n\n" if waiting else ""
    return f"""\
# Which faults the tests would notice

Each mutant is a module that determines results, with one small fault: another operator, another constant,
a negated condition, a missing statement. It is tested only by the fast tests of its module, not by the whole
suite. This page is written by `python -m benchmarks.mutations`, except for the reasons.

Noticed: **{totals[0]} of {totals[1]}** ({100 * totals[0] / max(1, totals[1]):.0f} %), without mutants that
behave the same as the original code. If fewer mutants were tried than exist, they are a sample (`--sample`),
chosen by a digest. For most mutants that were not noticed at first, a test was written, so the shares show
what is noticed now; of the mutants that were not tried, fewer may be. A number after a mutant distinguishes
mutants that look alike.

{not_run}| module | mutants | tried | not noticed | of these equivalent | noticed |
|---|---|---|---|---|---|
{chr(10).join(line for _, line in sorted(lines))}

## Not noticed

| module | code | mutant | reason |
|---|---|---|---|
{chr(10).join(f"| {row} | {reason} |" for row, reason in sorted(survivors.items()))}
"""


if __name__ == "__main__":
    main()
