"""The notebook and the examples of docs/api.md work."""

import json
import re

import pytest
from clones import Clone, smoke_clone_of


def run(clone: Clone, code: str) -> list[str]:
    """Run `code` and return its output; it must not leave temporary files."""
    temporary = clone.root.with_name("temporary")
    temporary.mkdir(exist_ok=True)
    shown = clone.run("python", "-c", code, TMPDIR=str(temporary)).splitlines()
    assert [str(path) for path in temporary.rglob("*")] == []
    return shown


@pytest.mark.slow
def test_the_notebook_and_the_examples_run_and_train_nothing_twice(template, tmp_path):
    clone = smoke_clone_of(template, tmp_path / "clone")
    notebook = json.loads((clone.root / "docs" / "notebook.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    *lines, last = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    shown = run(clone, "\n".join([*lines, f"print({last})", "print(slow.name, fast.name)"]))
    slow, fast = clone.mlflow_runs()
    assert shown[-1] == f"{slow.info.run_name} {fast.info.run_name}"
    assert shown[-2] == "(2, 10)"
    assert f"0.01 {fast.data.metrics['val_accuracy']} {fast.data.metrics['test_accuracy']}" in shown

    page = (clone.root / "docs" / "api.md").read_text()
    examples = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    shown = run(
        clone,
        examples + "\nimport os, shutil\nprint(sorted(os.listdir(folder)))\nshutil.rmtree(folder)",
    )
    assert shown[-1] == "['data', 'models', 'reports']"
    *_, best = clone.mlflow_runs()
    assert len(clone.mlflow_runs()) == 3
    assert str(best.data.metrics["test_accuracy"]) in shown
    assert "(5, 10)" in shown
    assert not [line for line in shown if re.match(r"[IWE]0000 ", line)]  # lines of TensorFlow
