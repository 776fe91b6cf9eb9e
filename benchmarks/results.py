"""Train the named experiments with each of their seeds, or restore them, and write docs/results.md.

    python -m benchmarks.results [--repeats 3] [--known]

What DVC's cache has is not trained again; the CPU seconds are those that its training took. The plain
script that they are compared with runs `--repeats` times meanwhile. From nothing all takes some three hours
of one core; `--known` trains nothing, and leaves out what is not there.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.__main__ import HERE, REPOSITORY, save_npz, timed
from pipeline.config import Config, compose
from pipeline.errors import sentences
from pipeline.evaluation.figures import BLUE, GREY, ORANGE, STYLE
from pipeline.evaluation.metrics import wilson
from pipeline.sweeps.known import RunCache
from pipeline.sweeps.trial import reproduced, show
from pipeline.training.history import read_history
from pipeline.workspace import Workspace

# How many seeds, from 0 on: fewer where one takes a quarter of an hour.
SEEDS = {"seed_design": 5, "mlp_best": 5, "cnn_fast": 5, "cnn_best": 3, "fashion_cnn": 3}
DOCS = REPOSITORY / "docs"
PICTURE = DOCS / "images" / "results.png"


@dataclass(frozen=True)
class Result:
    """What one seed of an experiment came to; accuracies are fractions."""

    experiment: str
    data: str
    parameters: int
    cpu_seconds: float
    train_accuracy: float
    accuracy: float
    images: int  # in the test set

    @classmethod
    def of(cls, config: Config, trial: Workspace) -> "Result":
        """Read it from the workspace in which the stages ran."""
        trained = json.loads(trial.run.read_text(encoding="utf-8"))["result"]
        metrics = json.loads(trial.metrics.read_text(encoding="utf-8"))
        return cls(
            config.name,
            config.data.name,
            trained["parameters"],
            trained["cpu_seconds"],
            read_history(trial.history).kept.accuracy,
            metrics["accuracy"],
            metrics["images"],
        )


def main() -> None:
    """Run or restore everything, and write the page and its picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--known", action="store_true")
    options = parser.parse_args()
    results: dict[str, list[Result]] = {}
    script: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        npz = Path(folder) / "mnist.npz"
        for config, trial in trials(options.known):
            show(config, trial)
            results.setdefault(config.name, []).append(Result.of(config, trial))
            if config.name == "seed_design" and len(script) < options.repeats:
                save_npz(npz, trial.root)
                script.append(timed([sys.executable, str(HERE / "seed_script.py"), str(npz)], HERE)[0].cpu)
    page = render(list(results.values()), script)
    (DOCS / "results.md").write_text(page, encoding="utf-8")
    picture(list(results.values()), median(script)).savefig(PICTURE, metadata={"Software": None})
    print(page)


def trials(known: bool) -> Iterator[tuple[Config, Workspace]]:
    """Each experiment with each seed, and the workspace in which its stages ran."""
    repository = Workspace(REPOSITORY)
    cache = RunCache(repository)
    for name, seeds in SEEDS.items():
        for seed in range(seeds):
            config = compose(REPOSITORY / "conf", [f"experiment={name}", f"seed={seed}"])
            if known and "train" in cache.find(config).missing:
                continue
            with reproduced(config, repository) as trial:
                yield config, trial


def render(experiments: list[list[Result]], script: list[float]) -> str:
    """The results as Markdown, from those of each experiment and the CPU seconds of the plain script."""

    def row(seeds: list[Result]) -> str:
        first, accuracy = seeds[0], mean(seed.accuracy for seed in seeds)
        low, high = wilson(round(accuracy * first.images), first.images)
        wanted = f" of {SEEDS[first.experiment]}" if len(seeds) < SEEDS[first.experiment] else ""
        spread = f" ± {100 * _deviation(seeds):.2f}" if len(seeds) > 1 else ""
        return (
            f"| [`{first.experiment}`](../conf/experiment/{first.experiment}.yaml) | {first.parameters:,} "
            f"| {len(seeds)}{wanted} | {100 * accuracy:.2f}{spread} % "
            f"| {100 * low:.2f} to {100 * high:.2f} % "
            f"| {100 * mean(seed.train_accuracy for seed in seeds):.2f} % "
            f"| {mean(seed.cpu_seconds for seed in seeds):,.0f} s | {_cost(seeds, median(script)):.1f} |"
        )

    missing = [name for name in SEEDS if name not in {seeds[0].experiment for seeds in experiments}]
    return "\n".join(
        [
            "# Results",
            "",
            "Each experiment of [conf/experiment](../conf/experiment) with the seeds 0, 1, 2 ...: mean and "
            "standard deviation",
            "over the seeds of the last epoch's accuracy on the test images, which had no part in choosing "
            "the recipes",
            "and were read once for each seed, at the end. Written by `python -m benchmarks.results`.",
            "",
            "| experiment | parameters | seeds | test | interval | training | CPU | × script |",
            "|---|---|---|---|---|---|---|---|",
            *(row(seeds) for seeds in experiments),
            "",
            *([f"Not trained yet: {', '.join(f'`{name}`' for name in missing)}.", ""] if missing else []),
            "![Test error and cost of each experiment](images/results.png)",
            "",
            f"- Interval: Wilson's, 95 %, of the mean on {experiments[0][0].images:,} test images: two "
            "recipes whose intervals overlap",
            "  may still differ, since both met the same images.",
            "- Training: over the last epoch, in which the weights still change, on images as distorted as "
            "the recipe has it.",
            f"- CPU: of one training, on {os.cpu_count()} shared processors; × script: against the whole of",
            "  [benchmarks/seed_script.py](../benchmarks/seed_script.py), the plain design with Keras alone, "
            f"{median(script):.0f} s (median of {len(script)}).",
            "",
        ]
    )


def picture(experiments: list[list[Result]], script: float) -> Figure:
    """Test error over cost, both on logarithmic axes, one point for each experiment."""
    with matplotlib.rc_context(STYLE):
        figure = Figure((8, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        for seeds in experiments:
            cost, error = _cost(seeds, script), 1 - mean(seed.accuracy for seed in seeds)
            colour = BLUE if seeds[0].data == "mnist" else ORANGE
            axes.errorbar(cost, 100 * error, 100 * _deviation(seeds), fmt="o", color=colour, capsize=3)
            axes.annotate(
                f"{seeds[0].experiment}\n{100 * (1 - error):.2f} %", (cost, 100 * error), (9, 0),
                textcoords="offset points", va="center", color=colour,
            )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="CPU time of a training, × the plain script")
        axes.set(ylabel="test error, %", xlim=(0.1, 100), ylim=(0.2, 10))
        axes.set_title("Mean over the seeds; the bar is one standard deviation either way")
        for axis, ticks in ((axes.xaxis, (0.1, 1, 10, 100)), (axes.yaxis, (0.2, 0.5, 1, 2, 5, 10))):
            axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            axis.set_ticks([], minor=True)
        axes.grid(color=GREY, alpha=0.2)
    return figure


def _cost(seeds: list[Result], script: float) -> float:
    return mean(seed.cpu_seconds for seed in seeds) / script


def _deviation(seeds: list[Result]) -> float:
    return stdev(seed.accuracy for seed in seeds) if len(seeds) > 1 else 0.0


if __name__ == "__main__":
    with sentences():
        main()
