"""Unsafe YAML in conf/ is refused, in little time and memory."""

import resource
import time

import pytest
from composing import refused

from pipeline.config.compose import compose
from pipeline.config.unsafe_yaml import refuse_unsafe_yaml
from pipeline.errors import PipelineError

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
        (
            "a: 0\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> c\n",
            "has conflict markers of git (line 2)",
        ),
        ("a: [1\n", "is not valid YAML"),
        ("? [a, b]\n: 5\n", "is not valid YAML"),
        ("a: \x00\n", "is not valid YAML"),
    ],
    ids=lambda value: value[:20].split("\n")[0],
)
def test_unsafe_yaml_is_refused_fast_and_in_little_memory(conf, text, says):
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


def test_many_keys_are_checked_within_seconds(conf):
    (conf / "experiment" / "evil.yaml").write_text("".join(f"k{n}: 1\n" for n in range(40_000)))
    start = time.process_time()
    refused(conf)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["a: " + 49 * "[" + 49 * "]", "a: [" + 9_996 * "1," + "1]"])
def test_yaml_just_below_the_limits_is_read(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    refuse_unsafe_yaml(tmp_path)
    (tmp_path / "config.yaml").write_text(text.replace("[", "[[", 1).replace("]", "]]", 1))
    with pytest.raises(PipelineError, match=r"50 levels|10000 values"):
        refuse_unsafe_yaml(tmp_path)


def test_a_few_aliases_are_accepted(conf):
    (conf / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nseed: &seed 3\npreprocess:\n  seed: *seed\n"
    )
    assert compose(conf, ["experiment=mine"]).preprocess.seed == 3
