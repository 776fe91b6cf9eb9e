"""params.yaml is read as it was written, and an edit by hand is refused."""

import pytest
import yaml
from composing import CONF, refused, rewrite

from pipeline.config.compose import compose
from pipeline.config.params import (
    dump,
    dump_values,
    experiment_of,
    read_params,
    refuse_edited,
    unedited_values,
    view,
)
from pipeline.config.section import leaves
from pipeline.errors import PipelineError


def test_a_text_that_looks_like_a_command_remains_text(conf, tmp_path):
    for key in ("name", "data.name", "tracking.experiment", "train.optimizer", "seed"):
        assert key in refused(CONF, f"{key}='1; touch PWNED'")
    config = compose(CONF, ["data.classes=['1; touch PWNED','$(touch PWNED)']"])
    path = tmp_path / "params.yaml"
    path.write_text(dump(config))
    assert read_params(path).data.classes == ("1; touch PWNED", "$(touch PWNED)")


FLOATS = [1e-5, 1e-10, 1.5e-7, 0.1 + 0.2, 0.001, 1.0, 10.0, 5e-324]


def with_rate(value):
    config = compose(CONF)
    train = config.train.model_copy(update={"learning_rate": value})
    return config.model_copy(update={"train": train})


def written(config, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(dump(config), encoding="utf-8")
    return path


def test_params_name_their_dvc_experiment(tmp_path):
    path = tmp_path / "params.yaml"
    for name in ("light-tune", None):
        path.write_text(dump(compose(CONF, []), name))
        assert experiment_of(path) == name


@pytest.mark.parametrize("value", FLOATS)
def test_dumped_values_are_read_back_equal(tmp_path, value):
    assert read_params(written(with_rate(value), tmp_path)) == with_rate(value)


def test_a_large_float_is_read_back_equal(tmp_path):
    config = compose(CONF)
    config = config.model_copy(update={"data": config.data.model_copy(update={"timeout": 3e20})})
    assert read_params(written(config, tmp_path)) == config


@pytest.mark.parametrize("value", [*FLOATS, 3e20, 1e16])
def test_every_yaml_reader_reads_floats_as_floats(tmp_path, value):
    from ruamel.yaml import YAML

    path = written(with_rate(value), tmp_path)
    for version in ((1, 1), (1, 2)):
        reader = YAML(typ="safe", pure=True)
        reader.version = version
        found = reader.load(path.read_text())["train"]["learning_rate"]
        assert (type(found), found) == (float, value)
    found = yaml.safe_load(path.read_text())["train"]["learning_rate"]
    assert (type(found), found) == (float, value)


@pytest.mark.parametrize("version", [(1, 1), (1, 2)])
def test_texts_that_look_like_other_values_are_texts_to_every_yaml_reader(tmp_path, version):
    from ruamel.yaml import YAML

    classes = (
        *(
            "null",
            "yes",
            "on",
            "010",
            "1e9",
            "1e-3",
            "1e-5",
            "5e55",
            "0o7",
            "0x1",
            "1:30",
            ".inf",
            "nan",
            "1_0",
        ),
        *("2020-01-01", "~", "é", "a: b", "#", "=", "x" * 200),
    )
    config = compose(CONF)
    config = config.model_copy(update={"data": config.data.model_copy(update={"classes": classes})})
    path = written(config, tmp_path)
    assert read_params(path) == config
    reader = YAML(typ="safe", pure=True)
    reader.version = version
    assert tuple(reader.load(path.read_text())["data"]["classes"]) == classes


def test_the_same_conf_gives_the_same_text_in_the_order_of_the_schema():
    text = dump(compose(CONF))
    assert text == dump(compose(CONF))
    keys = [key for key, _ in leaves(yaml.safe_load(text))]
    assert keys == [key for key, _ in leaves(compose(CONF).model_dump())]
    # The order of overrides is not the order of keys.
    assert dump(compose(CONF, ["seed=1", "train.epochs=2"])) == dump(
        compose(CONF, ["train.epochs=2", "seed=1"])
    )


# As written by earlier versions: texts that look like numbers, lists, a long line.
WRITTEN = """\
# Composed from conf/ by the stage `compose`: edit conf/, not this file.
# For one run:  dvc exp run -S train.learning_rate=0.01   or   python -m pipeline train.learning_rate=0.01
# content: 886c556f12f631d7
seed: 0
name: on a line that is as long as it may be and not one letter longer it says what these are, in one
  breath
data:
  classes:
    - é
    - '0x1F'
  sources:
    - kind: url
train:
  learning_rate: 1.0e-05
"""


def test_params_are_written_exactly_as_before_so_that_git_and_dvc_see_no_change(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(WRITTEN, encoding="utf-8")
    values = unedited_values(path)
    assert values["data"] == {"classes": ["é", "0x1F"], "sources": [{"kind": "url"}]}
    assert dump_values(values) == WRITTEN


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epochs: 10\n", "epochs: 11\n"),
        ("# content: ", "# contents: "),
        ("seed: 0\ndata", "data"),
        ("name: mnist-mlp", "name: [mnist-mlp"),
    ],
)
def test_an_edit_by_hand_is_refused_with_the_alternatives(tmp_path, old, new):
    path = written(compose(CONF), tmp_path)
    rewrite(path, old, new)
    with pytest.raises(PipelineError, match="edited by hand") as error:
        read_params(path)
    for remedy in ("into conf/", "python -m pipeline KEY=VALUE", "dvc exp run -S KEY=VALUE"):
        assert remedy in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("'0'", '"0"'),
        ("\nseed:", "\n\nseed:"),
        ("epochs: 10\n", "epochs:   10 # few\n"),
        ("  timeout: 5.0\n", "  timeout: 5.0\n\n\n"),
    ],
)
def test_reformatted_params_do_not_count_as_edited(tmp_path, old, new):
    path = written(compose(CONF), tmp_path)
    rewrite(path, old, new)
    assert read_params(path) == compose(CONF)


def test_an_unfinished_merge_of_params_is_distinguished_from_an_edit(tmp_path):
    path = written(compose(CONF), tmp_path)
    rewrite(path, "seed: 0\ndata", "<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> theirs\ndata")
    with pytest.raises(PipelineError, match=r"git checkout --ours params\.yaml dvc\.lock") as error:
        read_params(path)
    assert "edited by hand" not in str(error.value)


def test_an_edit_is_not_lost_and_a_file_without_a_header_is_not_an_edit(tmp_path):
    path = tmp_path / "params.yaml"
    refuse_edited(path)
    path.write_text("seed: 7\n")
    refuse_edited(path)
    written(compose(CONF), tmp_path)
    refuse_edited(path)
    rewrite(path, "epochs: 10\n", "epochs: 11\n")
    with pytest.raises(PipelineError, match="edited by hand"):
        refuse_edited(path)


def test_params_of_an_older_version_are_refused_with_the_command_that_composes_them(tmp_path):
    values = compose(CONF).model_dump(mode="json")
    del values["data"]["reader"]
    path = tmp_path / "params.yaml"
    path.write_text(dump_values(values))
    with pytest.raises(
        PipelineError, match=r"data\.reader.*\n.*`dvc repro compose` composes params\.yaml again"
    ):
        read_params(path)


def test_missing_and_empty_params_are_refused(tmp_path):
    with pytest.raises(PipelineError, match="is missing: `dvc repro` composes it"):
        read_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").touch()
    with pytest.raises(PipelineError, match="edited by hand"):
        read_params(tmp_path / "params.yaml")


def test_a_view_has_the_given_keys_and_nothing_else():
    config = compose(CONF)
    part = view(config, ["seed", "data.name", "data.classes", "train"])
    assert (part.seed, part.data.name, part.data.classes) == (config.seed, "mnist", config.data.classes)
    assert part.train.early_stopping.monitor == "val_loss"
    for outside in ("name", "model", "tracking", "preprocess"):
        with pytest.raises(AttributeError):
            getattr(part, outside)
    for outside in ("sources", "sha256", "timeout"):
        with pytest.raises(AttributeError):
            getattr(part.data, outside)


def test_a_view_of_a_key_that_does_not_exist_is_an_error():
    with pytest.raises(AttributeError):
        view(compose(CONF), ["train.lr"])
