"""What a search gets from the study and reports to it; the trainings are simulated."""

import itertools
import json
import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline.artifacts.history import Epoch
from pipeline.artifacts.workspace import Workspace
from pipeline.config.compose import compose, compose_each, compose_sweep
from pipeline.config.modules import PACKAGE
from pipeline.errors import PipelineError
from pipeline.results.report import Trial
from pipeline.sweeps.command import Command, parse
from pipeline.sweeps.folder import NO_MORE, Folder
from pipeline.sweeps.search import Search, SearchJob, begin_study
from pipeline.sweeps.space import space_of
from pipeline.training.pruning import WHY_PRUNED, open_study
from pipeline.trials.outcome import Outcome, key_of

CONF = Path(__file__).parents[2] / "conf"
RATE, WIDTH = "train.learning_rate=tag(log, interval(0.0001, 0.1))", "model.hidden_units=[8],[16],[32]"


@dataclass(frozen=True)
class SimulatedSearch(SearchJob):
    """A job with simulated trainings."""

    def run_with_values(self, suggested, config, trial, log):
        rate, width = config.train.learning_rate, config.model.hidden_units[0]
        if why := suggested.user_attrs.get(WHY_PRUNED):
            return trial.ended("pruned", error=why)
        if rate > 0.09:
            return trial.ended("failed", error="the loss is NaN")
        accuracy = 0.9 - abs(math.log10(rate) + 2) / 10 + width / 1000
        kept = Epoch(1, 0.5, accuracy, 0.5, accuracy, rate)
        outcome = Outcome("id", "run", "0" * 64, 64 * width, 1, kept)
        return trial.ended("done", outcome)


@pytest.fixture
def job(tmp_path):
    return begun(tmp_path / "3f2a")


def begun(root, *arguments, space=(RATE, WIDTH), deadline=math.inf):
    """A job in a folder with conf/ and a study."""
    folder = Folder(root)
    base = ("experiment=smoke", *arguments)
    settings = next(compose_each(CONF, [base])).sweep
    if not folder.conf.exists():
        shutil.copytree(CONF, folder.conf, ignore=shutil.ignore_patterns("local"))
        (root / "trials").mkdir()
    begin_study(folder, settings)
    spanned = space_of(parse(space, {}), settings)
    trials = {str(number): Trial(number, overrides=base) for number in range(1, 50)}
    return SimulatedSearch(root, root, trials, 0, False, "", spanned, settings, 5, deadline)


def run(job, places):
    """The values that each trial gets."""
    return [job.run(str(place), Folder(job.folder)).differs for place in places]


def test_the_sequence_depends_only_on_the_seed_wherever_it_was_interrupted(tmp_path):
    whole = run(begun(tmp_path / "whole"), range(1, 16))
    assert len({json.dumps(values) for values in whole}) == 15

    begin = begun(tmp_path / "killed")
    first = run(begin, range(1, 13))
    # The thirteenth trial was killed after it got its values and before it reported a result.
    asked = begin.ask(Folder(begin.folder), 13)
    rest = run(begun(tmp_path / "killed"), range(13, 16))
    assert first + rest == whole
    assert [len(open_study(Folder(begin.folder).journal).trials), asked.number] == [15, 12]

    assert run(begun(tmp_path / "other", "sweep.seed=1"), range(1, 4)) != whole[:3]


@pytest.mark.slow
def test_tpe_learns_from_the_results(job):
    rates = [float(values["train.learning_rate"]) for values in run(job, range(1, 41))]
    off = [abs(math.log10(rate) + 2) for rate in rates]
    assert sum(off[30:]) < 0.7 * sum(off[:10])


def test_trials_that_ask_at_the_same_time_get_different_values(tmp_path):
    folder = Folder(tmp_path / "grid")
    job = begun(folder.root, "sweep.sampler=grid", space=(WIDTH, "seed=0,1"))
    asked = [tuple(job.ask(folder, place).params.values()) for place in range(1, 7)]
    assert sorted(asked) == list(itertools.product(["[16]", "[32]", "[8]"], "01"))


def test_a_trial_that_ended_is_not_asked_again_and_one_that_failed_gets_other_values(tmp_path):
    job = begun(tmp_path / "3f2a", space=("train.learning_rate=0.01,0.1",))
    folder = Folder(job.folder)
    first = {place: job.run(str(place), folder) for place in range(1, 9)}
    done = [place for place, trial in first.items() if trial.state == "done"]
    assert 0 < len(done) < 8
    again = {place: job.run(str(place), folder) for place in first}
    assert all(again[place].differs == first[place].differs for place in done)
    for _ in range(20):
        failed = [place for place, trial in again.items() if trial.state == "failed"]
        again |= {place: job.run(str(place), folder) for place in failed}
    assert {trial.state for trial in again.values()} == {"done"}
    states = [trial.state.name for trial in open_study(folder.journal).trials]
    assert states.count("COMPLETE") == 8
    assert states.count("FAIL") >= 8 - len(done)


@pytest.fixture
def conf(tmp_path):
    """A copy of conf/ with one more experiment, which sets what the files of models set."""
    conf = shutil.copytree(CONF, tmp_path / "conf", ignore=shutil.ignore_patterns("local"))
    wide = (conf / "experiment" / "smoke.yaml").read_text() + "\nmodel:\n  hidden_units: [64]\n"
    (conf / "experiment" / "wide.yaml").write_text(wide)
    return conf


def search(conf, *options):
    composed = compose_sweep(conf, [])
    return Search(Command((), None, None, Workspace(conf.parent), tuple(parse(options, {})), composed))


def edit_small_model(conf):
    small = conf / "model" / "mlp_small.yaml"
    small.write_text(small.read_text().replace("[32]", "[16]"))


def test_a_search_is_another_one_if_the_file_of_an_option_changed(conf):
    options = ("experiment=smoke", "model=mlp,mlp_small")
    before = search(conf, *options).identity
    assert search(conf, *options).identity == before
    edit_small_model(conf)
    assert search(conf, *options).identity != before


def test_a_trial_runs_again_if_the_file_of_an_option_changed_whose_values_another_one_hides(conf, tmp_path):
    options = ("experiment=wide,smoke", "model=mlp,mlp_small")
    folder = Folder(tmp_path / "3f2a")
    (folder.root / "trials").mkdir(parents=True)

    def to_run():
        shutil.copytree(conf, folder.conf, dirs_exist_ok=True)
        made = search(conf, *options)
        made.begin(folder)
        return [name for name in made.waiting() if int(name) <= len(pairs)]

    shutil.copytree(PACKAGE, folder.code.root / "src" / "pipeline")
    pairs = [(one, other) for one in ("wide", "smoke") for other in ("mlp", "mlp_small")]
    for number, (experiment, model) in enumerate(pairs, start=1):
        overrides = (f"experiment={experiment}", f"model={model}")
        trial = Trial(number, key_of(compose(conf, overrides)), overrides, state="done")
        folder.note(str(number), trial)
    before = search(conf, *options).identity
    assert to_run() == []
    edit_small_model(conf)
    assert search(conf, *options).identity == before
    assert to_run() == ["4"]


def test_a_damaged_journal_is_named_in_a_sentence(job):
    run(job, [1])
    folder = Folder(job.folder)
    _, *rest = folder.journal.read_text().splitlines()
    folder.journal.write_text("\n".join(["{", *rest, ""]))
    with pytest.raises(PipelineError, match=r"journal\.log can't be read .*: delete it and run"):
        begin_study(folder, job.settings)


def test_a_trial_killed_before_it_had_a_number_does_not_stay_running(job):
    study = open_study(Folder(job.folder).journal)
    study.ask()
    begin_study(Folder(job.folder), job.settings)
    assert [trial.state.name for trial in study.trials] == ["FAIL"]


def test_a_pruned_trial_stays_pruned_although_its_process_died(job):
    folder = Folder(job.folder)
    asked = job.ask(folder, 1)
    study = open_study(folder.journal)
    study._storage.set_trial_user_attr(asked._trial_id, WHY_PRUNED, "worse than others")
    ended = job.run("1", folder)
    assert (ended.state, ended.error) == ("pruned", "worse than others")
    assert [trial.state.name for trial in study.trials] == ["PRUNED"]


def test_no_trial_starts_when_the_time_is_up(tmp_path, job):
    folder = Folder(job.folder)
    late = replace(job, deadline=1.0)
    assert late.run("1", folder) is None
    assert folder.stop.read_text() == NO_MORE
    assert open_study(folder.journal).trials == []


def test_both_objectives_are_reported_with_their_directions(tmp_path):
    job = begun(tmp_path / "two", "sweep.objectives=[val_accuracy,parameters]", space=(RATE, WIDTH))
    run(job, range(1, 5))
    study = open_study(Folder(job.folder).journal)
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(len(trial.values) == 2 and trial.values[1] in (512, 1024, 2048) for trial in study.trials)
