"""Reports of sweeps that never ran, for tests of the code that reads them."""

from dataclasses import replace

from pipeline.results.report import Report, Trial


def trial(values=None, state="done", error="", **differs):
    """A trial whose number `sweep` sets."""
    return Trial(
        number=0,
        key=" ".join(f"{key}={value}" for key, value in differs.items()),
        overrides=("experiment=smoke", *(f"{key}={value}" for key, value in differs.items())),
        differs=differs,
        state=state,
        error=error,
        values={"val_accuracy": 0.5} if values is None else values,
    )


def sweep(*groups, **changes):
    """A sweep of the trials in all groups, whose runs are named after their numbers."""
    trials = [trial for group in groups for trial in group]
    report = Report(
        id="3f2a" * 4,
        name="smoke-sweep-3f2a",
        command=("experiment=smoke", "train.learning_rate=0.01,0.003"),
        sweeper="grid",
        launcher="joblib",
        objectives=("val_accuracy",),
        space={"train.learning_rate": ["0.01", "0.003"]},
        tracking={"uri": None, "experiment": "image-classifier", "run_name": None, "timeout": 5.0},
        start=1_700_000_000_000,
        trials=tuple(
            replace(trial, number=number, run=f"smoke-{number}", run_id=f"{number:032x}")
            for number, trial in enumerate(trials, start=1)
        ),
    )
    return replace(report, **changes)
