"""dvc.yaml and the digests of options cover all modules that can change a result."""

import ast

import pytest

from declared import (
    DIGESTS,
    DOCSTRING_ONLY,
    EXEMPT,
    REPOSITORY,
    STAGES,
    Imports,
    file_of,
    files_of,
    imported_by,
    is_exempt,
)


def test_every_exempt_module_is_used():
    used = set().union(*map(imported_by, STAGES))
    assert all(any(module == name or module.startswith(f"{name}.") for module in used) for name in EXEMPT)


def test_the_imports_of_a_backend_are_declared_by_train_or_in_its_digest():
    """The digest follows imports within `pipeline.training.backends`."""
    declared = {file for dep in STAGES["train"]["deps"] if dep.startswith("src/") for file in files_of(dep)}
    for path in (REPOSITORY / file_of("pipeline.training.backends")).parent.glob("*.py"):
        visitor = Imports()
        visitor.visit(ast.parse(path.read_text()))
        inside = {module for module in visitor.found if module.startswith("pipeline.training.backends.")}
        files = {file_of(module) for module in visitor.found - inside if not is_exempt(module)}
        assert files - DOCSTRING_ONLY <= declared, path


@pytest.mark.parametrize("package", sorted(set(DIGESTS.values()) - {"pipeline.training.backends"}))
def test_the_modules_of_options_import_only_what_a_digest_covers(package):
    """The digests follow imports within `pipeline.models` and `pipeline.data`."""
    for path in (REPOSITORY / file_of(package)).parent.glob("*.py"):
        visitor = Imports()
        visitor.visit(ast.parse(path.read_text()))
        folders = {module.split(".")[1] for module in visitor.found if not is_exempt(module)}
        assert folders <= {"models", "data"} | ({"artifacts"} if path.stem == "__init__" else set()), path


def test_the_file_of_each_stage_is_named_after_it():
    for stage, definition in STAGES.items():
        assert (
            definition["cmd"]
            == f'PATH=".venv/bin:$PATH" PYTHONHASHSEED=0 PYTHONPATH=src python -m pipeline.stages {stage}'
        )
        assert f"src/pipeline/stages/{stage}.py" in definition["deps"]


def test_changes_by_dvc_to_dvc_yaml_leave_the_rest_unchanged(tmp_path):
    from dvc.utils.serialize import modify_yaml

    copied = tmp_path / "dvc.yaml"
    copied.write_bytes((REPOSITORY / "dvc.yaml").read_bytes())
    for frozen in (True, False):  # as `dvc freeze` and `dvc unfreeze` do
        with modify_yaml(str(copied)) as content:
            content["stages"]["fetch"]["frozen"] = frozen
    with modify_yaml(str(copied)) as content:
        del content["stages"]["fetch"]["frozen"]
    assert copied.read_text() == (REPOSITORY / "dvc.yaml").read_text()
