"""A tag with digests that somebody edited in MLflow is reported."""

from types import SimpleNamespace

import pytest

from pipeline.tracking import stored


@pytest.mark.parametrize("value", ["", "{", "null", "1", "[]", '{"run.json": 1}'])
def test_digests_that_were_edited_in_mlflow_are_a_problem(tmp_path, monkeypatch, value):
    (tmp_path / "run.json").write_text("{}")
    monkeypatch.setattr(stored, "logged_model_of", lambda *_: None)
    whole = stored.files_tag("inputs", stored.digests_below(tmp_path))
    info = SimpleNamespace(
        run_name="letters-1", run_id="1", experiment_id="1", artifact_uri=tmp_path.as_uri()
    )
    for tags in (whole, whole | {"pipeline.files.training": value}):
        run = SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))
        found = stored.fetch(None, run, tmp_path / "download")
        assert found.checked == 1
        changed = "The tag pipeline.files.training of the run letters-1 or its model was changed in MLflow"
        assert [text.partition(":")[0] for text in found.problems] == ([] if tags is whole else [changed])
