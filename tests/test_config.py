import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from pipeline.config.compose import compose, compose_each, from_hydra
from pipeline.config.params import (
    dump,
    dump_values,
    experiment_of,
    read_params,
    refuse_edited,
    unedited_values,
    view,
)
from pipeline.config.schema import Config
from pipeline.config.section import leaves
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml
from pipeline.errors import PipelineError

REPOSITORY = Path(__file__).parents[1]
CONF = REPOSITORY / "conf"
OPTIONS = sorted(path.relative_to(CONF) for path in CONF.glob("*/*.yaml") if path.parent.name != "local")


@pytest.fixture
def conf(tmp_path):
    """Return a copy of conf/ to break."""
    copy = tmp_path / "project" / "conf"
    shutil.copytree(CONF, copy, ignore=shutil.ignore_patterns("local"))
    return copy


def refused(conf, *overrides):
    with pytest.raises(PipelineError) as error:
        compose(conf, overrides)
    return str(error.value)


def rewrite(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


# --- what conf/ holds --------------------------------------------------------------------------


@pytest.mark.parametrize("path", OPTIONS, ids=str)
def test_every_option_composes(path):
    override = f"{path.parent}={path.stem}"
    if override == "data=idx":
        assert "data.name is ???: give it a value" in refused(CONF, override)
    else:
        assert compose(CONF, [override])


@pytest.mark.parametrize("path", sorted(CONF.glob("experiment/*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_opens_with_the_command_that_runs_it(path):
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert head[0] == "# @package _global_"
    assert f"#   python -m pipeline experiment={path.stem}" in head


def test_every_value_has_a_comment_where_it_is_set():
    """On its line or above it; names, digests and list items are explained by the comment of their parent."""
    speaks_for_itself = re.compile(
        r"(name|sha256|.*_images|.*_labels|learning_rate|dataset|package|version|url)$"
    )
    for path in [
        CONF / "config.yaml",
        *CONF.glob("*/default.yaml"),
        CONF / "model/mlp.yaml",
        CONF / "data/mnist.yaml",
    ]:
        lines = path.read_text().splitlines()
        in_hydra = False
        for number, line in enumerate(lines):
            in_hydra = line.startswith("hydra:") or (in_hydra and line.startswith(" "))
            key = re.match(r"\s*(?:- )?([\w/ ]+): +[^\s#]", line)
            if key and not in_hydra and not key[1].startswith("override hydra"):
                above = number and lines[number - 1].lstrip().startswith("#")
                assert "# " in line or above or speaks_for_itself.match(key[1]), f"{path}: {line}"


def test_the_defaults_are_the_baseline_but_for_the_head():
    baseline, default = (dict(leaves(compose(CONF, o).model_dump())) for o in (["experiment=baseline"], []))
    different = {key for key in default if baseline[key] != default[key]}
    assert different == {"name", "model.head"}


# --- values ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.learning_rate=nan", "train.learning_rate is nan: .* \\(above 0 up to 10\\)"),
        ("train.learning_rate=1e400", "train.learning_rate is inf: .* \\(above 0 up to 10\\)"),
        ("train.learning_rate=-1", "train.learning_rate is -1: .* \\(above 0 up to 10\\)"),
        ("train.learning_rate=0.1x", "train.learning_rate is '0.1x': .* \\(above 0 up to 10\\)"),
        ("train.learning_rate='\"0.1\"'", "train.learning_rate is .* \\(above 0 up to 10\\)"),
        ("seed=-1", "seed is -1: .* \\(from 0 below 4,294,967,296\\)"),
        ("seed=18446744073709551616", "seed is 18446744073709551616: .* \\(from 0 below 4,294,967,296\\)"),
        ("seed=true", "seed is True: should be a valid integer"),
        ("train.epochs=0", "train.epochs is 0: .* \\(from 1 up to 100,000\\)"),
        ("train.epochs=1.5", "train.epochs is 1.5: .* \\(from 1 up to 100,000\\)"),
        ("train.xla=1", "train.xla is 1: should be a valid boolean"),
        ("train.weight_decay=0.1", "weight_decay needs optimizer adamw"),
        ("model.activation=rleu", "model.activation is 'rleu': should be 'relu', 'gelu'"),
        ("data.classes=[cat,cat]", "data: classes has a name twice"),
        ("data.sources=[]", "data.sources is \\[\\]: should have at least 1 item"),
        ("data.sources=[{kind: ftp}]", "data.sources.0"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_and_range(override, says):
    assert re.search(says, refused(CONF, override))


def test_early_stopping_without_validation_images_is_refused():
    overrides = ["preprocess.validation_fraction=0.0", "train.early_stopping.patience=3"]
    assert "train.early_stopping.patience needs validation images" in refused(CONF, *overrides)
    assert compose(CONF, overrides[:1])


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("train.lerning_rate=1", "Did you mean train.learning_rate"),
        ("train.lr=1", "Did you mean train.learning_rate"),
        ("+train.lr=1", "train.lr: there is no such key. Did you mean train.learning_rate"),
        (
            "model.stages=[]",
            "model.stages: the chosen model has no such key, but another one in conf/model does",
        ),
        (
            "+model.stages=[]",
            "model.stages: the chosen model has no such key, but another one in conf/model does",
        ),
        ("+model.hiden_units=[3]", "model.hiden_units: there is no such key. Did you mean model.hidden_u"),
        ("train.epoch=2", "train.epoch: there is no such key. Did you mean train.epochs"),
        ("+data.sources.0.dateset=x", "data.sources.0.dateset: there is no such key"),
        ("~train.epoch", "train.epoch: there is no such key. Did you mean train.epochs"),
        ("foo=1", "Available: name, seed, data, preprocess, model, train, evaluate, tracking"),
        ("+foo=1", "foo: there is no such key. Available: name, seed,"),
        ("~train.epochs", "train.epochs: the key is missing"),
        ("data=mist", "conf/data has no option 'mist'. Did you mean mnist?"),
        (
            "model=transformer",
            "conf/model has no option 'transformer'. Available: cnn, cnn_deep, cnn_fine, cnn_large, "
            "cnn_photo, mlp",
        ),
        ("experiment=smok", "Did you mean smoke?"),
        ("model=null", "model=null is refused"),
        ("seed=???", "seed is ???: give it a value"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(override, says):
    assert says in refused(CONF, override)


def test_a_missing_group_and_a_missing_conf_are_refused(conf):
    rewrite(conf / "config.yaml", "  - model: mlp # which network\n", "")
    # The default name refers to the name of the model.
    assert "model" in refused(conf)
    rewrite(conf / "config.yaml", "name: ${data.name}-${model.name}", "name: x")
    assert "model: the key is missing" in refused(conf)
    shutil.rmtree(conf)
    assert "There is no" in refused(conf)


def test_a_text_that_looks_like_a_command_stays_a_text(conf, tmp_path):
    for key in ("name", "data.name", "tracking.experiment", "train.optimizer", "seed"):
        assert key in refused(CONF, f"{key}='1; touch PWNED'")
    config = compose(CONF, ["data.classes=['1; touch PWNED','$(touch PWNED)']"])
    path = tmp_path / "params.yaml"
    path.write_text(dump(config))
    assert read_params(path).data.classes == ("1; touch PWNED", "$(touch PWNED)")


# --- code, files and secrets -------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        "+_target_=os.system",
        "+model._target_=os.system",
        "+data.sources.0._target_=os.system",
        "hydra.launcher._target_=os.system",
        "+hydra.callbacks.evil={_target_: os.system}",
    ],
)
def test_an_import_path_in_an_override_is_refused(override):
    assert f"{override} is refused: all options are chosen by name" in refused(CONF, override)


@pytest.mark.parametrize(
    "text",
    [
        "_target_: os.system\n",
        "hydra:\n  callbacks:\n    evil: {_target_: os.system, command: touch PWNED}\n",
        "data:\n  sources:\n    - {_target_: os.system}\n",
    ],
)
def test_an_import_path_in_conf_is_refused(conf, text):
    (conf / "experiment" / "evil.yaml").write_text("# @package _global_\n" + text)
    assert "evil.yaml, line" in (said := refused(conf))
    assert "_target_ is refused" in said


@pytest.mark.parametrize(
    "override",
    [
        "hydra.run.dir=/tmp/x",
        "hydra.run.dir=../x",
        "hydra.run.dir=a/../../x",
        "hydra.run.dir=${oc.env:HOME}/x",
        "hydra.sweep.dir=/tmp/x",
        "hydra.sweep.dir=../project-2",
        "hydra.sweep.subdir=../../../../x",
        "hydra.sweep.subdir='../../../../${hydra.job.num}'",
        "hydra.output_subdir=../../../x",
    ],
)
def test_an_output_folder_outside_of_the_project_is_refused(conf, override):
    said = refused(conf, override)
    assert override.partition("=")[0] in said
    assert "outside of the project" in said
    assert os.environ["HOME"] + "/x" not in said


@pytest.mark.parametrize(
    "override",
    ["hydra.run.dir=outputs/a/../b", "hydra.sweep.subdir='${hydra.job.num}'", "hydra.output_subdir=.hydra"],
)
def test_an_output_folder_inside_of_the_project_is_accepted(conf, override):
    assert compose(conf, [override])


def test_an_output_folder_behind_a_link_out_of_the_project_is_refused(conf, tmp_path):
    (conf.parent / "out").symlink_to(tmp_path)
    assert "outside of the project" in refused(conf, "hydra.run.dir=out/x")


SECRETS = [
    "${oc.env:SECRET}",
    "a-${ oc.env:SECRET }",
    "${oc.env:SECRET,fallback}",
    "${oc.${model.activation}:SECRET}",
    "${oc.decode:${oc.env:SECRET}}",
]


@pytest.mark.parametrize("value", SECRETS)
@pytest.mark.parametrize("file", ["config.yaml", "tracking/default.yaml"])
def test_a_value_from_the_environment_is_refused_and_not_shown(conf, monkeypatch, file, value):
    monkeypatch.setenv("SECRET", "hunter2")
    old = "name: ${data.name}-${model.name}" if file == "config.yaml" else "run_name: null"
    rewrite(conf / file, old, f"{old.partition(':')[0]}: {value}")
    said = refused(conf)
    assert "name is " in said
    assert "hunter2" not in said


@pytest.mark.parametrize("value", SECRETS)
def test_a_value_from_the_environment_in_an_override_is_refused_and_not_shown(monkeypatch, value):
    monkeypatch.setenv("SECRET", "hunter2")
    assert "hunter2" not in refused(CONF, f"tracking.run_name='{value}'")


def test_a_key_that_was_deleted_from_the_config_is_to_be_put_back(conf):
    rewrite(conf / "config.yaml", "seed: 0", "# seed: 0")
    assert "seed: the key is missing" in refused(conf)
    assert "seed: conf/config.yaml lacks the key" in refused(conf, "seed=1")


def test_hydra_may_not_smuggle_the_environment_into_the_config(conf, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    rewrite(conf / "config.yaml", "  run:\n", "  job:\n    name: ${oc.env:SECRET}\n  run:\n")
    rewrite(conf / "config.yaml", "${data.name}-${model.name}", "${hydra.job.name}")
    assert "hunter2" not in refused(conf)


def test_the_config_that_hydra_gives_to_the_application_is_checked_by_the_same_rules():
    from omegaconf import OmegaConf

    [composed] = compose_each(CONF, [["data=digits"]])
    values = composed.model_dump(mode="json", exclude={"modules"})
    assert from_hydra(OmegaConf.create(values)) == composed
    assert composed.trial == compose(CONF, ["data=digits"])
    for name, says in [("${oc.env:HOME}", "only references"), ("???", "name is ???"), (5, "name is 5")]:
        with pytest.raises(PipelineError, match=re.escape(says)):
            from_hydra(OmegaConf.create(values | {"name": name}))


# --- YAML --------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: !!python/object/apply:os.system ['touch PWNED']\n", "python/object/apply"),
        ("name: !!python/name:os.system\n", "python/name"),
        ("name: !local x\n", "the tag '!local'"),
        ("seed: 1\nseed: 2\n", "found duplicate key seed"),
        ("train:\n  epochs: 1\n  xla: true\n  epochs: 2\n", "found duplicate key epochs"),
        (BOMB, "aliases expand to over 10000 values"),
        ("a: &a\n  b: *a\n", "aliases expand to over 10000 values"),
        ("seed: " + "[" * 200_000 + "]" * 200_000, "nested more than 50 levels"),
        ("seed: " + "[" * 200_000, "nested more than 50 levels"),
        ("a: [1\n", "is not valid YAML"),
        ("? [a, b]\n: 5\n", "is not valid YAML"),
        ("a: \x00\n", "is not valid YAML"),
    ],
    ids=lambda value: value[:20].split("\n")[0],
)
def test_yaml_that_is_not_plain_is_refused_fast_and_in_little_memory(conf, text, says):
    path = conf / "experiment" / "evil.yaml"
    path.write_text(text)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    said = refused(conf, "experiment=evil")
    assert time.process_time() - start < 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB
    assert str(path) in said
    assert says in said


def test_bytes_that_are_not_text_are_refused(conf):
    (conf / "experiment" / "evil.yaml").write_bytes(b"a: \xff\xfe")
    assert "evil.yaml is not valid YAML" in refused(conf)


def test_many_keys_are_checked_in_time(conf):
    (conf / "experiment" / "evil.yaml").write_text("".join(f"k{n}: 1\n" for n in range(40_000)))
    start = time.process_time()
    refused(conf)
    assert time.process_time() - start < 5


def test_a_value_from_the_environment_is_refused_also_where_nothing_chooses_the_file(conf):
    (conf / "model" / "mine.yaml").write_text("name: ${oc.env:SECRET}\n")
    with pytest.raises(PipelineError, match=re.escape("name is ${oc.env:SECRET}")):
        refuse_unsafe_yaml(conf)


@pytest.mark.parametrize("text", ["a: " + 49 * "[" + 49 * "]", "a: [" + 9_996 * "1," + "1]"])
def test_yaml_just_below_the_limits_is_read(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    refuse_unsafe_yaml(tmp_path)
    (tmp_path / "config.yaml").write_text(text.replace("[", "[[", 1).replace("]", "]]", 1))
    with pytest.raises(PipelineError, match=r"50 levels|10000 values"):
        refuse_unsafe_yaml(tmp_path)


def test_a_few_aliases_are_fine(conf):
    (conf / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: &seed 3\npreprocess:\n  seed: *seed\n"
    )
    assert compose(conf, ["experiment=mine"]).preprocess.seed == 3


# --- params.yaml -------------------------------------------------------------------------------

FLOATS = [1e-5, 1e-10, 1.5e-7, 0.1 + 0.2, 0.001, 1.0, 10.0, 5e-324]


def with_rate(value):
    config = compose(CONF)
    train = config.train.model_copy(update={"learning_rate": value})
    return config.model_copy(update={"train": train})


def written(config, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(dump(config), encoding="utf-8")
    return path


def test_params_say_of_which_dvc_experiment_they_are(tmp_path):
    path = tmp_path / "params.yaml"
    for name in ("light-tune", None):
        path.write_text(dump(compose(CONF, []), name))
        assert experiment_of(path) == name


@pytest.mark.parametrize("value", FLOATS)
def test_what_is_dumped_is_read_back_equal(tmp_path, value):
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
def test_texts_that_look_like_something_else_are_texts_to_every_yaml_reader(tmp_path, version):
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
def test_a_hand_edit_is_refused_with_both_ways_to_do_it_right(tmp_path, old, new):
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


# --- views -------------------------------------------------------------------------------------


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


def test_sections_are_frozen():
    config = compose(CONF)
    for change in (
        lambda: setattr(config, "seed", 1),
        lambda: setattr(config.train.early_stopping, "patience", 1),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            change()
    assert isinstance(config.data.classes, tuple)
    assert isinstance(config, Config)


# --- what it costs -----------------------------------------------------------------------------

HEAVY = {"tensorflow", "keras", "mlflow", "sklearn", "matplotlib", "dvc", "scipy", "pandas"}


def heavy_in(*arguments):
    """Return the heavy packages that `python ARGUMENTS` imports, from `-X importtime`."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "import time:" in line}
    assert "encodings" in modules
    return HEAVY & {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "arguments",
    [["-c", "import pipeline"], ["-m", "pipeline", "--help"], ["-m", "pipeline", "--cfg", "job"]],
    ids=" ".join,
)
def test_the_package_and_its_help_import_nothing_heavy(arguments):
    assert heavy_in(*arguments) == set()


def test_fetch_and_preprocess_import_neither_tensorflow_nor_mlflow():
    code = "from pipeline.stages import fetch, preprocess, __main__"
    assert heavy_in("-c", code) <= {"matplotlib"}


def test_train_imports_keras_without_its_optional_imports_which_still_work_later():
    code = (
        "import sys; from pipeline.environment import import_keras; import_keras(); "
        "import pipeline.stages.train; print(*sys.modules); "
        "import sklearn.metrics, matplotlib.pyplot, pandas, jax"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "keras" in modules
    assert not {"sklearn", "matplotlib", "pandas", "jax"} & modules
