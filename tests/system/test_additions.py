"""The examples in README.md (a new model) and docs/sources.md (a new source) work exactly as written."""

import re
from pathlib import Path

import pytest
from clones import executed

REPOSITORY = Path(__file__).parents[2]
TEXT = "".join((REPOSITORY / page).read_text() for page in ("README.md", "docs/sources.md"))
FILES = dict(re.findall(r"`((?:src|conf)/[\w/]+\.\w+)`:\n\n```\w+\n(.*?)```", TEXT, re.DOTALL))


@pytest.mark.slow
def test_the_readme_adds_a_model_and_a_source_which_retrains_nothing(smoke):
    assert [Path(name).name for name in FILES] == ["linear.py", "linear.yaml", "bars.py", "bars.yaml"]
    for name, text in FILES.items():
        (smoke.root / name).write_text(text)
    (smoke.root / "src/pipeline/models/notes.md").write_text("Ideas for other models.")
    before = smoke.digests()
    assert executed(smoke.repro()) == ["compose"]
    assert smoke.digests() == before
    assert "params.yaml" not in smoke.changes()

    *_, summary = smoke.pipeline("model=linear", "data=bars").splitlines()
    assert re.match(r"Training accuracy [0-9.]+ %, validation [0-9.]+ %, test [0-9.]+ % \(", summary)
    run = smoke.mlflow_runs()[-1]
    assert (run.data.params["model.name"], run.data.params["data.name"]) == ("linear", "bars")


@pytest.mark.slow
def test_notes_and_files_of_editors_change_nothing(smoke):
    for folder, file in (
        ("conf/model", "mlp.yaml"),
        ("src/pipeline/models", "mlp.py"),
        ("conf", "config.yaml"),
    ):
        for name in (f"{file}~", f".{file}.swp", f"#{file}#", f"{file}.orig", "notes.md", ".DS_Store"):
            (smoke.root / folder / name).write_bytes(b"\xff left over")
        (smoke.root / folder / f".#{file}").symlink_to("somebody@machine.4711:1")
        (smoke.root / folder / ".ipynb_checkpoints").mkdir()
        (smoke.root / folder / ".ipynb_checkpoints" / "some-checkpoint.py").write_text("1 +")
    before = smoke.changes()
    assert executed(smoke.repro()) == []
    assert smoke.changes() == before
    assert "learning_rate: 0.001\n" in smoke.pipeline("--cfg", "job")
