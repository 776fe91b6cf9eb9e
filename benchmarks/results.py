"""Train the named experiments with each of their seeds, and write docs/results.md.

    python -m benchmarks.results [EXPERIMENT ...] [--known]

The result of each training is saved as a file in trained/, together with the CPU seconds that the plain
script took at the same time, since machines differ. It is valid as long as the values and the code of the
training do not change; after that, the page says that it comes from earlier ones, until it is trained again.
So a table that takes hours can be made in parts, on several machines, by several processes with one
EXPERIMENT each. From scratch, everything takes about five hours on one core. `--known` trains nothing.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import mean, median, stdev

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.common import HERE, REPOSITORY, save_npz, timed
from pipeline.artifacts.history import read_history
from pipeline.artifacts.workspace import Workspace, write_text
from pipeline.config.compose import compose
from pipeline.config.schema import Config
from pipeline.errors import exit_on_error
from pipeline.evaluation.metrics import wilson
from pipeline.plots.style import BLUE, GREY, ORANGE, STYLE
from pipeline.tracking.occasion import occasions_of
from pipeline.trials.trial import run_trial

# The number of seeds, from 0: fewer if one training takes a quarter of an hour.
SEEDS = {"baseline": 5, "mlp_best": 5, "cnn_fast": 5, "cnn_best": 3, "fashion_cnn": 3, "fashion_best": 3}
DOCS = REPOSITORY / "docs"
TRAINED = HERE / "trained"
# The code on which the results of a training depend. The modules of the model and of the backend are not
# listed, because their digests are among the values of the configuration.
CODE = (
    "src/pipeline/training",
    "src/pipeline/models/__init__.py",
    "src/pipeline/stages/train.py",
    "src/pipeline/stages/preprocess.py",
    "src/pipeline/artifacts/processed.py",
)
PICTURE = DOCS / "images" / "results.png"


@dataclass(frozen=True)
class Result:
    """The result of one seed of an experiment; accuracies are fractions."""

    experiment: str
    data: str
    parameters: int
    cpu_seconds: float
    script_cpu_seconds: float  # of the plain script, on the same machine in the same minutes
    train_accuracy: float
    test_accuracy: float | None  # of the model file; None: trained before both accuracies were measured
    test_tta_accuracy: float | None  # with test-time augmentation; None: the experiment does not use it
    images: int  # in the test set

    @property
    def accuracy(self) -> float:
        """The test accuracy that represents the experiment: with test-time augmentation if it uses it."""
        found = self.test_accuracy if self.test_tta_accuracy is None else self.test_tta_accuracy
        assert found is not None
        return found

    @classmethod
    def of(cls, config: Config, trial: Workspace, script_cpu_seconds: float) -> "Result":
        """Read the result from the workspace in which the stages ran."""
        run = json.loads(trial.run.read_text(encoding="utf-8"))
        *_, occasion = occasions_of(trial, run["id"])
        metrics = json.loads(trial.metrics.read_text(encoding="utf-8"))
        return cls(
            config.name,
            config.data.name,
            run["result"]["parameters"],
            occasion.cpu_seconds,
            script_cpu_seconds,
            read_history(trial.history).best.train_accuracy,
            metrics["test_accuracy"],
            metrics.get("test_tta_accuracy"),
            metrics["test_images"],
        )


def main() -> None:
    """Train the requested experiments, and write the page and its picture from all saved results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", default=list(SEEDS))
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.experiments) - set(SEEDS):
        parser.error(f"no such experiment: {', '.join(sorted(unknown))}; choose from {', '.join(SEEDS)}")
    for name in [] if options.known else options.experiments:
        for seed in range(SEEDS[name]):
            if known(name, seed) is None:
                train(name, seed)
    found = {name: [kept(name, seed) for seed in range(seeds)] for name, seeds in SEEDS.items()}
    results = [whole for seeds in found.values() if (whole := [result for result in seeds if result])]
    if not results:
        sys.exit("error: there are no results yet; leave out --known.")
    page = render(results, {name for name in SEEDS if is_of_earlier_code(name)})
    write_text(DOCS / "results.md", page)
    picture(results).savefig(PICTURE, metadata={"Software": None})
    print(page)


def known(name: str, seed: int) -> Result | None:
    """Return the saved result of a training with the current values and code, if there is one."""
    return kept(name, seed, inputs(_config(name, seed)))


def kept(name: str, seed: int, of_inputs: str | None = None) -> Result | None:
    """Return the saved result of a training, if there is one (with the inputs `of_inputs`, if given)."""
    path = _place(name, seed)
    if not path.exists():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return Result(**found["result"]) if of_inputs in (None, found["inputs"]) else None


def is_of_earlier_code(name: str) -> bool:
    """Return whether a saved result of an experiment is of a training with earlier values or code."""
    return any(kept(name, seed) and not known(name, seed) for seed in range(SEEDS[name]))


def train(name: str, seed: int) -> None:
    """Run the plain script, train or restore one seed of an experiment, and save the result."""
    config, script = _config(name, seed), _script()
    with run_trial(config, Workspace(REPOSITORY)) as trial:
        keep(name, seed, Result.of(config, trial, script))


def keep(name: str, seed: int, result: Result) -> None:
    """Save the result of a training, and a digest of what it depends on."""
    found = {"inputs": inputs(_config(name, seed)), "result": asdict(result)}
    write_text(_place(name, seed), json.dumps(found, indent=2) + "\n")


def inputs(config: Config) -> str:
    """Return a digest of what determines a training: its values and its code."""
    # The sources do not matter, because the arrays that they give are pinned.
    values = config.model_dump_json(exclude={"name": True, "tracking": True, "modules": {"sources"}})
    return hashlib.sha256(f"{values}\n{_code()}".encode()).hexdigest()


@cache
def _code() -> str:
    """Return git's digests of the code of a training; refuse uncommitted edits, which these would miss."""
    if edited := _git("status", "--porcelain", "--", *CODE):
        sys.exit(f"error: commit the training's code before its results are saved:\n{edited}")
    return _git("rev-parse", *(f"HEAD:{path}" for path in CODE))


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout


@cache
def _config(name: str, seed: int) -> Config:
    return compose(REPOSITORY / "conf", [f"experiment={name}", f"seed={seed}"])


def _place(name: str, seed: int) -> Path:
    return TRAINED / f"{name}-{seed}.json"


def _script() -> float:
    """Run the plain script on raw data from the cache, and return its CPU seconds."""
    config = _config("baseline", 0)
    with tempfile.TemporaryDirectory() as folder, run_trial(config, Workspace(REPOSITORY)) as trial:
        npz = save_npz(Path(folder) / "mnist.npz", trial.root)
        return timed([sys.executable, str(HERE / "seed_script.py"), str(npz)], HERE)[0].cpu


def render(experiments: list[list[Result]], earlier: Collection[str] = ()) -> str:
    """Render the results of each experiment as Markdown; those in `earlier` have to be trained again."""

    def row(seeds: list[Result]) -> str:
        first, accuracy = seeds[0], mean(seed.accuracy for seed in seeds)
        low, high = wilson(round(accuracy * first.images), first.images)
        wanted = f" of {SEEDS[first.experiment]}" if len(seeds) < SEEDS[first.experiment] else ""
        return (
            f"| [`{first.experiment}`](../conf/experiment/{first.experiment}.yaml)"
            f"{' †' if first.experiment in earlier else ''} | {first.parameters:,} "
            f"| {len(seeds)}{wanted} | {_mean([seed.test_accuracy for seed in seeds])} "
            f"| {_mean([seed.test_tta_accuracy for seed in seeds])} "
            f"| {100 * low:.2f} to {100 * high:.2f} % "
            f"| {100 * mean(seed.train_accuracy for seed in seeds):.2f} % "
            f"| {mean(seed.cpu_seconds for seed in seeds):,.0f} s | {_cost(seeds):.1f} |"
        )

    missing = [name for name in SEEDS if name not in {seeds[0].experiment for seeds in experiments}]
    return "\n".join(
        [
            "# Results",
            "",
            "Each experiment of [conf/experiment](../conf/experiment) was trained with the seeds 0, 1, 2 ...",
            "The table has the mean and standard deviation over the seeds of the accuracy on the test images",
            "after the last epoch. These images were not used to choose the recipes, and were evaluated once",
            "for each seed, at the end. Written by `python -m benchmarks.results`.",
            "",
            "| experiment | parameters | seeds | test | test, TTA | interval | training | CPU | × script |",
            "|---|---|---|---|---|---|---|---|---|",
            *(row(seeds) for seeds in experiments),
            "",
            *([f"Not trained yet: {', '.join(f'`{name}`' for name in missing)}.", ""] if missing else []),
            *(
                [
                    "†: trained with earlier code or values. The current ones may give other weights, but",
                    "the accuracy should be the same within the deviation. `python -m benchmarks.results`",
                    "trains these experiments again.",
                    "",
                ]
                if any(seeds[0].experiment in earlier for seeds in experiments)
                else []
            ),
            "![Test error and cost of each experiment](images/results.png)",
            "",
            "- Test: accuracy of the model file. Test, TTA: accuracy with test-time augmentation",
            "  (`evaluate.tta_shift`), the mean prediction over an image and its eight copies moved by a",
            "  pixel, which the model file does not do. –: not measured.",
            f"- Interval: 95 % Wilson interval of the mean on {experiments[0][0].images:,} test images (with",
            "  TTA if the recipe uses it). Two recipes whose intervals overlap may still differ, since they",
            "  were evaluated on the same images.",
            "- Training: mean accuracy during the last epoch, while the weights still change, on images with",
            "  the augmentation of the recipe.",
            "- CPU: mean CPU time of a training. × script: median of its ratio to the CPU time of",
            "  [benchmarks/seed_script.py](../benchmarks/seed_script.py), the baseline with Keras alone,",
            "  which ran just before it on the same machine.",
            "",
        ]
    )


def picture(experiments: list[list[Result]]) -> Figure:
    """Draw test error over cost, both on logarithmic axes, with one point for each experiment."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((8, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        points = [(_cost(seeds), 1 - mean(seed.accuracy for seed in seeds)) for seeds in experiments]
        for seeds, (cost, error) in zip(experiments, points, strict=True):
            tta = " (TTA)" if seeds[0].test_tta_accuracy is not None else ""
            colour = BLUE if seeds[0].data == "mnist" else ORANGE
            # The label is on the left if there is another point close to the right.
            left = any(1 < other / cost < 4 and 0.8 < height / error < 1.25 for other, height in points)
            axes.errorbar(cost, 100 * error, 100 * _deviation(seeds), fmt="o", color=colour, capsize=3)
            axes.annotate(
                f"{seeds[0].experiment}{tta}\n{100 * (1 - error):.2f} %", (cost, 100 * error),
                (-9 if left else 9, 0), textcoords="offset points", va="center",
                ha="right" if left else "left", color=colour,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="CPU time of a training, × the plain script")
        axes.set(ylabel="test error, %", xlim=(0.1, 100), ylim=(0.2, 10))
        axes.set_title("Mean over the seeds; the bar is one standard deviation either way")
        for axis, ticks in ((axes.xaxis, (0.1, 1, 10, 100)), (axes.yaxis, (0.2, 0.5, 1, 2, 5, 10))):
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        axes.grid(color=GREY, alpha=0.2)
    return figure


def _cost(seeds: list[Result]) -> float:
    return median(seed.cpu_seconds / seed.script_cpu_seconds for seed in seeds)


def _mean(accuracies: list[float | None]) -> str:
    """Return mean and deviation in percent, or a dash if a seed has no value."""
    found = [accuracy for accuracy in accuracies if accuracy is not None]
    if len(found) < len(accuracies):
        return "–"
    spread = f" ± {100 * stdev(found):.2f}" if len(found) > 1 else ""
    return f"{100 * mean(found):.2f}{spread} %"


def _deviation(seeds: list[Result]) -> float:
    return stdev(seed.accuracy for seed in seeds) if len(seeds) > 1 else 0.0


if __name__ == "__main__":
    with exit_on_error():
        main()
