import re
import shutil

import pytest
from clones import executed


def litter(clone) -> list[str]:
    """Return what trials left behind, except locks, occasions and the notes of stages."""
    left = (clone.root / ".pipeline").rglob("*")
    return [
        str(path)
        for path in left
        if path.is_file()
        and path.suffix != ".lock"
        and "occasions" not in path.parts
        and path.name != "computed.jsonl"
    ]


def test_a_trial_is_cached_without_changing_the_workspace_and_restored_by_repro(reproduced, smoke):
    before, results = smoke.files(), smoke.digests()
    output = smoke.pipeline("train.learning_rate=0.01")
    assert "Running stage 'train'" in output
    *_, summary = output.splitlines()
    assert summary.startswith("Training accuracy ")
    assert smoke.changes() == ""
    assert smoke.digests() == results
    assert not [path for path in smoke.files() - before if not path.startswith(("mlruns/", ".pipeline/"))]
    assert litter(smoke) == []
    assert len(smoke.mlflow_runs()) == 2

    again = smoke.pipeline("train.learning_rate=0.01")
    assert executed(again) == []
    assert "Stage 'train' is cached" in again
    assert summary in again.splitlines()
    assert len(smoke.mlflow_runs()) == 2

    # Named by its run, which does not belong to a sweep.
    name = smoke.mlflow_runs()[-1].info.run_name
    assert "run `dvc repro`, which restores it" in smoke.run("pipeline", "adopt", name, "--name", "winner")
    text = (smoke.root / "conf" / "experiment" / "winner.yaml").read_text()
    assert text.endswith("defaults:\n  - smoke\n  - _self_\n\ntrain:\n  learning_rate: 0.01\n"), text
    smoke.edit("conf/config.yaml", "experiment: smoke", "experiment: winner")
    restored = smoke.repro()
    assert executed(restored) == ["compose"]
    assert smoke.digests()["models/model.keras"] != results["models/model.keras"]


@pytest.mark.slow
def test_a_trial_in_a_fresh_clone_creates_no_outputs_there(fresh):
    fresh.pipeline("experiment=smoke")
    assert fresh.changes() == ""
    assert not {path.partition("/")[0] for path in fresh.files()} & {"models", "reports", "data", "outputs"}


def test_hydras_own_options_work(smoke):
    before = smoke.files()
    assert "learning_rate: 0.5\n" in smoke.pipeline("--cfg", "job", "train.learning_rate=0.5")
    files = (smoke.root / "conf" / "experiment").glob("*.yaml")
    experiments = ", ".join(sorted(path.stem for path in files))
    assert f"experiment: {experiments}" in smoke.pipeline("--help")
    assert "experiment/smoke" in smoke.pipeline("--info", "defaults")
    assert smoke.files() == before


# What bash does when the tab key is pressed, after the two commands of the README.
TAB = """
eval "$(python -m pipeline -sc install=bash)"
eval "$(pipeline --show-completion bash)"
COMP_LINE="$1"
COMP_POINT=${#COMP_LINE}
COMP_WORDS=($1)
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
$(complete -p "${COMP_WORDS[0]}" | sed 's/.* -F //; s/ .*//') "${COMP_WORDS[0]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("python -m pipeline mod", ["model.", "model="]),
        ("python -m pipeline experiment=sm", ["experiment=smoke"]),
        ("python -m pipeline -m seed=1 train.learn", ["train.learning_rate="]),
        ("pipeline pre", ["predict"]),
    ],
)
def test_the_tab_key_completes(reproduced, typed, offered):
    assert reproduced.run("bash", "-c", TAB, "bash", typed).split() == offered


# What other shells do with the script for them. Outside of the line editor, zsh has no compdef and compadd.
OTHER_TABS = {
    "fish": 'eval "$(python -m pipeline -sc install=fish)"; complete -C $argv[1]',
    "zsh": r"""
        compdef() { function=$1 }
        compadd() { print -l -- ${(M)@:#$PREFIX*} }
        eval "$(python -m pipeline -sc install=zsh)"
        words=(${=1}) CURRENT=${#words} PREFIX=${words[-1]}
        $function
    """,
}


@pytest.mark.parametrize("shell", OTHER_TABS)
def test_the_tab_key_completes_in_other_shells(reproduced, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    options = {"fish": ["--no-config", "-c"], "zsh": ["-f", "-c"]}[shell]
    names = [] if shell == "fish" else [shell]
    for typed, offered in [
        ("mod", ["model.", "model="]),
        ("-m seed=1 train.learn", ["train.learning_rate="]),
    ]:
        shown = reproduced.run(shell, *options, OTHER_TABS[shell], *names, f"python -m pipeline {typed}")
        assert shown.split() == offered


# Runs the application where .pipeline/hydra can't be created, as in a clone of another user.
NOT_PERMITTED = """
import errno, os, sys
from pipeline.__main__ import main

def mkdir(path, *rest, make=os.mkdir):
    if os.path.basename(path) == "hydra":
        raise PermissionError(errno.EACCES, "Permission denied", str(path))
    make(path, *rest)

os.mkdir = mkdir
sys.argv = ["pipeline", "experiment=smoke"]
main()
"""


def test_a_clone_in_which_no_folder_can_be_created_is_no_traceback(smoke):
    shutil.rmtree(smoke.root / ".pipeline" / "hydra", ignore_errors=True)
    output = smoke.run("python", "-c", NOT_PERMITTED, code=1)
    assert re.search(r"error: .* not permitted at .*\.pipeline/hydra: nothing was left half-written", output)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train.learnin_rate=1"], "Did you mean train.learning_rate"),
        (["hydra.run.dir=/tmp/x"], "outside of the project"),
        (["-m", "hydra.sweep.dir=../x", "seed=1,2"], "outside of the project"),
        (["train.learning_rate=nan"], "train.learning_rate"),
        (["seed=-1"], "seed is -1"),
        (["train.epochs=1.5"], "train.epochs is 1.5"),
        (["model=mlpp"], "Did you mean mlp"),
        (["train.epochs"], "train.epochs"),
        (["-m", "--cfg", "job"], "--multirun and --cfg cannot be combined"),
        (["--experiment", "smoke"], "write experiment=NAME"),
        (["-m", "seed=range(0,0)"], "names no value"),
        (["-m", "hydra.launcher._target_=os.system", "seed=1,2"], "chosen by name"),
        (["-m", "hydra.searchpath=[file:///tmp]", "seed=1,2"], "--config-dir"),
        (["--config-dir", "none", "seed=1"], "none is not a folder with options"),
        (["--config-name", "other"], "--config-dir adds a folder"),
        (["--cfg", "job", "modle=cnn"], "Did you mean model"),
        (["--cfg", "job", "--resolve", "seed=${sed}"], "seed refers to ${sed}: there is no such key"),
        (["--info", "all", "model=cmn"], "Did you mean cnn"),
        (["--help", "seed=1,2"], "names several values"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_in_a_sentence_and_nothing_is_written(reproduced, arguments, said):
    before = reproduced.files()
    output = reproduced.pipeline(*arguments, code=1)
    assert "error: " in output
    assert said in output
    assert "Traceback" not in output
    assert reproduced.files() == before
    assert reproduced.changes() == ""
