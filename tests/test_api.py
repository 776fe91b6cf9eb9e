"""The public interface: what it refuses, and what its import costs."""

import subprocess
import sys

import pytest

import pipeline
from pipeline import PipelineError, Run, compose, load_run, run_stage


def test_importing_the_package_imports_nothing_but_the_standard_library():
    code = f"import sys; sys.path[:0] = {sys.path!r}; import pipeline; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    imported = set(done.stdout.split()) - {"__main__"}
    assert {name for name in imported if name.startswith("pipeline")} == {"pipeline"}
    assert {name.partition(".")[0] for name in imported} - sys.stdlib_module_names == {"pipeline"}


def test_the_interface_has_exactly_the_documented_names():
    assert all(getattr(pipeline, name).__doc__ for name in pipeline.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        pipeline.trian  # noqa: B018


def test_overrides_are_those_of_the_command_line():
    config = compose("experiment=smoke", "train.epochs=3")
    assert (config.name, config.train.epochs, config.train.batch_size) == ("smoke", 3, 32)
    with pytest.raises(PipelineError, match=r"train\.epohcs.*train\.epochs"):
        compose("train.epohcs=3")


def test_a_stage_writes_into_the_folder_it_is_given(tmp_path):
    config = compose("experiment=smoke")
    run_stage("fetch", config, tmp_path)
    assert (tmp_path / "data" / "raw" / "train_images.npy").exists()


def test_an_unknown_stage_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(PipelineError, match="no stage 'evalute': the stages are fetch, preprocess"):
        run_stage("evalute", compose("experiment=smoke"), tmp_path)


def test_a_stage_refuses_to_write_where_dvc_runs_it(tmp_path):
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(PipelineError, match="dvc repro"):
        run_stage("fetch", compose("experiment=smoke"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


@pytest.mark.parametrize("given", [["model=cnn"], {"model": "cnn"}, 3, None])
def test_overrides_that_are_not_texts_are_refused_in_a_sentence(given):
    with pytest.raises(PipelineError, match="is not an override: pass each as a text of its own"):
        compose(given)


@pytest.mark.parametrize("given", [3, None])
def test_a_run_that_is_not_named_by_a_text_is_not_blamed_on_mlflow(given):
    with pytest.raises(PipelineError, match=f"{given} is not the name of a run"):
        load_run(given)


def test_a_stage_refuses_values_that_are_not_a_configuration(tmp_path):
    with pytest.raises(PipelineError, match="'experiment=smoke' is not a configuration"):
        run_stage("fetch", "experiment=smoke", tmp_path)


@pytest.mark.parametrize(
    ("folder", "reason"), [(5, "5 is not a folder"), (__file__, "be used"), ("/proc/x", "be used")]
)
def test_a_stage_refuses_what_is_no_folder(folder, reason):
    with pytest.raises(PipelineError, match=reason):
        run_stage("fetch", compose("experiment=smoke"), folder)


def test_a_stage_refuses_what_is_no_function_before_it_trains(tmp_path):
    with pytest.raises(PipelineError, match="5 is not a function"):
        run_stage("train", compose("experiment=smoke"), tmp_path, on_epoch=5)


@pytest.mark.parametrize(
    ("stage", "lacks"),
    [("preprocess", "data/raw, which the stage fetch"), ("train", "data/raw"), ("evaluate", "data/raw")],
)
def test_a_stage_in_the_wrong_order_names_the_one_to_run_before(tmp_path, stage, lacks):
    with pytest.raises(
        PipelineError, match=f"has no {lacks}.* in the order fetch, preprocess, train, evaluate"
    ):
        run_stage(stage, compose("experiment=smoke"), tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_notebook_shows_an_error_as_its_sentence_and_a_run_in_a_few_lines():
    with pytest.raises(PipelineError) as refused:
        compose("train.epohcs=3")
    # What IPython shows in place of a traceback, if an exception has this method.
    assert refused.value._render_traceback_() == [f"PipelineError: {refused.value}"]
    run = Run("smoke-1", "a1", {"seed": "0"}, {"test_accuracy": 0.9}, (("1", "7"),) * 10_000)
    assert repr(run) == "Run(name='smoke-1', id='a1', metrics={'test_accuracy': 0.9})"
