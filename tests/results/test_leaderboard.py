import sys
from dataclasses import replace

import pytest
from made_up import sweep, trial

from pipeline.results.leaderboard import caution, lines, next_steps, rank, rows, show


def seeds(accuracies, **differs):
    """A trial for each accuracy, with its place as the seed."""
    return [
        trial(values={"val_accuracy": value}, seed=str(seed), **differs)
        for seed, value in enumerate(accuracies)
    ]


def test_settings_are_ranked_by_the_mean_over_their_seeds_not_by_the_best_seed():
    board = rank(sweep(seeds([0.99, 0.80, 0.80], rate="0.1"), seeds([0.91, 0.93, 0.92], rate="0.01")))
    assert [setting.differs for setting in board.settings] == [{"rate": "0.01"}, {"rate": "0.1"}]
    best = board.best
    assert best.mean("val_accuracy") == pytest.approx(0.92)
    assert best.sd("val_accuracy") == pytest.approx(0.01)  # of a sample: over n - 1
    assert [trial.differs["seed"] for trial in best.trials] == ["1", "2", "0"]


def test_one_seed_has_no_spread_and_a_trial_that_was_requested_twice_counts_once():
    [once] = seeds([0.9], rate="0.1")
    [setting] = rank(sweep([once, replace(once, number=2)])).settings
    assert len(setting.trials) == 1
    assert setting.sd("val_accuracy") is None


def test_failed_pruned_and_waiting_trials_are_neither_ranked_nor_averaged():
    failed = trial(values={}, state="failed", error="The loss is NaN.", rate="0.1", seed="1")
    pruned = trial(values={"val_accuracy": 0.2}, state="pruned", rate="0.1", seed="2")
    waiting = trial(values={}, state="waiting", rate="9")
    board = rank(sweep(seeds([0.9], rate="0.1"), [failed, pruned, waiting]))
    assert [(setting.differs, len(setting.trials)) for setting in board.settings] == [({"rate": "0.1"}, 1)]
    assert board.best.mean("val_accuracy") == 0.9
    assert lines(board)[-3:] == [
        "failed: rate=0.1, seed=1: The loss is NaN.",
        "pruned: rate=0.1, seed=2",
        "1 of the trials did not finish.",
    ]


def test_a_lower_loss_is_better_and_the_next_objective_breaks_ties():
    trials = [
        trial(values={"val_loss": loss, "parameters": size}, n=name)
        for name, loss, size in [("a", 0.2, 1), ("b", 0.1, 30), ("c", 0.1, 20)]
    ]
    board = rank(sweep(trials, objectives=("val_loss", "parameters")))
    assert [setting.differs["n"] for setting in board.settings] == ["c", "b", "a"]


def test_the_pareto_front_has_the_settings_that_no_other_beats():
    sizes = {"good": (0.9, 300), "small": (0.7, 100), "beaten": (0.7, 200), "like good": (0.9, 300)}
    trials = [
        trial(values={"val_accuracy": accuracy, "parameters": size}, n=name)
        for name, (accuracy, size) in sizes.items()
    ]
    board = rank(sweep(trials, objectives=("val_accuracy", "parameters")))
    assert {setting.differs["n"] for setting in board.settings if setting.on_front} == {
        "good",
        "small",
        "like good",
    }
    assert [" [Pareto]" in line for line in lines(board)] == [True, True, True, False]


def test_trials_without_validation_images_come_last():
    board = rank(sweep([trial(values={"parameters": 5}, n="a")], seeds([0.5], n="b")))
    assert [setting.differs["n"] for setting in board.settings] == ["b", "a"]
    assert board.settings[1].mean("val_accuracy") is None
    assert "val_accuracy –" in lines(board)[1]


def test_a_sweep_over_seeds_alone_is_one_setting_and_one_without_results_has_no_best():
    assert lines(rank(sweep(seeds([0.9, 0.8]))))[0].startswith(
        "  1. the only setting: val_accuracy 85.00 % ± 7.07 (2 seeds); run smoke-"
    )
    assert rank(sweep([trial(values={}, state="waiting")])).best is None


def test_values_are_formatted_for_reading():
    values = {"val_accuracy": 0.985, "val_loss": 0.1, "parameters": 24_100}
    [line] = lines(rank(sweep([trial(values=values, n="1")], objectives=tuple(values))))
    assert "val_accuracy 98.50 %, val_loss 0.1000, parameters 24,100 [Pareto]" in line


def test_without_a_terminal_each_setting_is_a_line(capsys):
    trials = [trial(values={"val_accuracy": n / 100}, **{"train.learning_rate": f"{n}"}) for n in range(90)]
    show(rank(sweep(trials)))
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("  1. learning_rate=89: val_accuracy 89.00 %; run smoke-")
    assert len(shown) == 21
    assert "70 more settings" in shown[20]
    failed = [replace(each, state="failed") for each in trials[:21]]
    assert "more" not in "".join(lines(rank(sweep(trials[:20], failed[:20]))))
    assert lines(rank(sweep(failed)))[-1] == "     and 1 more trial without a result."


def test_the_next_steps_are_commands_that_use_the_best_setting():
    settings = seeds([0.9, 0.8], rate="1"), seeds([0.95], rate="2"), seeds([0.1], rate="3")
    assert next_steps(rank(sweep(*settings))) == [
        "Next: pipeline adopt smoke-3",
        "      pipeline compare smoke-3 smoke-1",
    ]
    board = rank(sweep([trial(rate="1")]))
    named = replace(board.best.trials[0], run="units=[3, 2]-ab12")
    board = replace(board, settings=(replace(board.best, trials=(named,)),))
    assert next_steps(board) == ["Next: pipeline adopt 'units=[3, 2]-ab12'"]
    assert next_steps(rank(sweep([trial({}, "failed")]))) == []


def test_a_run_is_not_compared_with_itself():
    """Settings of the evaluation share the run of their training."""
    board = rank(sweep(*(seeds([value], rate=str(value)) for value in (0.9, 0.8, 0.7))))
    for names, compared in (("aab", ["      pipeline compare a b"]), ("aaa", [])):
        settings = tuple(
            replace(setting, trials=(replace(setting.trials[0], run=name),))
            for setting, name in zip(board.settings, names, strict=True)
        )
        assert next_steps(replace(board, settings=settings)) == ["Next: pipeline adopt a", *compared]


def test_in_a_terminal_the_leaderboard_is_a_table(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    failed = trial(values={}, state="failed", error="Out of [memory].", **{"train.learning_rate": "7"})
    show(rank(sweep(seeds([0.9, 0.8], **{"train.learning_rate": "0.003162277660168"}), [failed])))
    out = capsys.readouterr().out
    header, _, first = [line.split() for line in out.splitlines() if line.strip()][:3]
    assert header == ["learning_rate", "val_accuracy", "seeds", "best", "run"]
    assert first == ["1", "0.003162", "85.00", "%", "±", "7.07", "2", "smoke-1"]
    assert "failed: learning_rate=7: Out of [memory]." in out


def test_the_table_for_mlflow_has_every_trial_in_full():
    failed = trial(values={}, state="failed", error="Why.", rate="7")
    first, last = rows(rank(sweep(seeds([0.5, 0.7], rate="0.003162277660168"), [failed])))
    assert first == {
        "rank": 1,
        "rate": "0.003162277660168",
        "val_accuracy": pytest.approx(0.6),
        "val_accuracy_sd": pytest.approx(0.1414, abs=1e-4),
        "seeds": 2,
        "best run": "smoke-2",
        "state": "done",
        "error": None,
    }
    nothing = dict.fromkeys(first)
    assert last == nothing | {"rate": "7", "best run": "smoke-3", "state": "failed", "error": "Why."}


def test_keys_with_the_same_last_part_keep_their_full_names():
    [line] = lines(rank(sweep([trial(**{"train.seed": "1", "preprocess.seed": "2", "model.name": "mlp"})])))
    assert "train.seed=1, preprocess.seed=2, name=mlp:" in line


def test_ranks_by_different_validation_images_come_with_a_warning():
    splits = [replace(trial(experiment=name), validation=name) for name in ("smoke", "baseline")]
    assert "not measured on the same validation images" in caution(rank(sweep(splits)))
    assert caution(rank(sweep([trial(rate="0.1"), trial(rate="0.2")]))) == ""
    # A single setting with a result has nothing to compare with; the size of a network needs no images.
    assert caution(rank(sweep([splits[0], replace(splits[1], state="failed")]))) == ""
    assert caution(rank(sweep(splits, objectives=("parameters",)))) == ""


def test_ranks_by_the_same_images_for_each_seed_come_without_a_warning():
    trials = [
        replace(trial(rate=rate, seed=seed), validation=seed)
        for rate in ("0.1", "0.2")
        for seed in ("0", "1")
    ]
    assert caution(rank(sweep(trials))) == ""
    assert caution(rank(sweep(trials[:-1]))) != ""
