"""`pipeline predict` on every kind of input, by a model that takes an image's brighter half for its class."""

import csv
import errno
import gzip
import io
import json
import os
import pty
import re
import subprocess
import sys
import tarfile
import threading
from contextlib import suppress

import numpy as np
import pytest
from prediction_inputs import KINDS, LEFT, RIGHT, SHAPE, npy, npz, put_folder, zip_with_a_name_that_is_no_text
from rich.cells import cell_len

from linear_model import linear_model
from photos import png
from pipeline.artifacts.onnx_file import load
from pipeline.errors import PipelineError
from pipeline.serving.inputs import items
from pipeline.serving.predict import Answer, _Table, answers, predict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    kernel = np.zeros((*SHAPE, 3))
    kernel[:, :3, 0] = kernel[:, 3:, 1] = 1
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    return linear_model(path, kernel.reshape(-1, 3), image_shape=SHAPE, classes=["left", "right", "neither"])


@pytest.fixture(scope="module")
def classifier(model):
    return load(model, fast=True)


def labels(classifier, *paths):
    return [
        answer.error or answer.best[0][0]
        for answer in answers(
            classifier, items([str(path) for path in paths], classifier.description.reader), 1
        )
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_recognised_by_their_content(classifier, tmp_path, kind):
    KINDS[kind](tmp_path / "input")
    assert labels(classifier, tmp_path / "input") == ["left", "right"]


def test_a_list_of_labels_beside_the_pictures_is_one_error_not_one_for_each_row(classifier, tmp_path):
    put_folder(tmp_path / "input")
    (tmp_path / "input" / "labels.csv").write_text("file,label\n" + "9.png,left\n10.png,right\n" * 50)
    *read, refused = labels(classifier, tmp_path / "input")
    assert read == ["left", "right"]
    assert refused.endswith("has 2 columns; an image has 24 pixels")


def test_a_pipe_from_the_shell_is_read(classifier, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(png(RIGHT),))
    writer.start()
    assert labels(classifier, tmp_path / "pipe") == ["right"]
    writer.join()


def test_a_pipe_in_a_folder_is_refused_without_waiting(classifier, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    [refused] = labels(classifier, tmp_path)
    assert refused


def test_the_readable_part_of_a_truncated_tar_is_answered_and_the_rest_is_an_error(classifier, tmp_path):
    with tarfile.open(tmp_path / "cut.tar", "w") as archive:
        for name in ("1.png", "2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(LEFT))
            archive.addfile(member, io.BytesIO(png(LEFT)))
    with tarfile.open(tmp_path / "cut.tar") as archive:
        lost = archive.getmembers()[1].offset
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:lost])
    read, refused = labels(classifier, tmp_path / "cut.tar")
    assert (read, "is not a complete archive" in refused) == ("left", True)


def test_items_keep_the_order_in_which_they_were_named(classifier, tmp_path):
    for number, image in enumerate((LEFT, RIGHT, RIGHT, LEFT)):
        (tmp_path / str(number)).write_bytes(png(image))
    paths = [tmp_path / str(number) for number in (3, 1, 0, 2)]
    assert labels(classifier, *paths) == ["left", "right", "left", "right"]


def test_many_are_read_by_several_processes_in_the_same_order(classifier, tmp_path):
    turns = np.random.default_rng(0).integers(0, 2, 700)
    for number, turn in enumerate(turns):
        (tmp_path / f"{number}.png").write_bytes(b"nothing" if number == 600 else png((LEFT, RIGHT)[turn]))
    expected = np.array(["left", "right"], object)[turns]
    found = labels(classifier, tmp_path)
    assert "not a PNG" in found[600]
    expected[600] = found[600]
    assert found == expected.tolist()


def test_many_keep_their_order_although_one_has_an_error_before_it_is_read(classifier, tmp_path):
    with (tmp_path / "input").open("w", newline="") as file:
        csv.writer(file).writerows([300 if number == 600 else 200, *[0] * 23] for number in range(700))
    found = labels(classifier, tmp_path / "input")
    assert found.pop(600) == "has a pixel that is not from 0 to 255"
    assert found == ["left"] * 699


def test_unreadable_input_is_an_error_in_its_place(classifier, tmp_path, capsys):
    bad = {
        "svg.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "empty.png": b"",
        "cut.png": png(LEFT)[:40],
        "floats.npy": npy(np.stack([LEFT, RIGHT]) / 255),
        "shape.npy": npy(np.zeros((2, 9, 9), np.uint8)),
        "objects.npy": npy(np.array([print], object)),
        "labels.npz": npz(labels=np.arange(3)),
        "cut.zip": b"PK\x03\x04" + bytes(50),
        "name.zip": zip_with_a_name_that_is_no_text(),
        "short.csv": b"1,2,3\n4,5,6\n",
        "high.csv": b",".join([b"300"] * 24),
        "table.gz": gzip.compress(b"1,2,3"),
        "cut.gz": gzip.compress(b"1,2,3")[:12],
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "good.png").write_bytes(png(LEFT))
    paths = [str(tmp_path / name) for name in [*bad, "good.png"]]
    assert predict(classifier, paths, 2, "jsonl") is False
    *refused, good = map(json.loads, capsys.readouterr().out.splitlines())
    # A table or an array has several items.
    files = [re.match(r"[a-z]+\.[a-z]+", line["file"].removeprefix(f"{tmp_path}/"))[0] for line in refused]
    assert list(dict.fromkeys(files)) == list(bad)
    assert all(len(line["error"].split()) > 1 for line in refused)
    assert good["label"] == "left"
    [zipped] = [line["error"] for line in refused if line["file"].endswith("table.gz")]
    assert zipped == "is gzipped, but is neither a tar archive nor an IDX file with images"


def test_a_file_and_a_folder_that_cannot_be_opened_are_errors_in_their_place(
    classifier, tmp_path, monkeypatch
):
    (tmp_path / "closed").mkdir()
    (tmp_path / "good.png").write_bytes(png(LEFT))
    (tmp_path / "loop.png").symlink_to("loop.png")
    scandir = os.scandir

    def refuse(folder):
        if str(folder).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    assert labels(classifier, tmp_path) == [
        "left",
        f"can't be read: {os.strerror(errno.ELOOP)}",
        "can't be read: Permission denied",
    ]


def test_an_empty_path_is_not_the_current_folder(classifier):
    with pytest.raises(PipelineError, match=r"no file or folder ''\."):
        items([""], classifier.description.reader)


def test_a_missing_path_is_refused_before_anything_is_read(classifier, tmp_path, capsys):
    (tmp_path / "good.png").write_bytes(png(LEFT))
    with pytest.raises(PipelineError, match=r"no file or folder .*missing\.png"):
        predict(classifier, [str(tmp_path / "good.png"), str(tmp_path / "missing.png")], 1, "jsonl")
    assert capsys.readouterr().out == ""


def test_a_folder_without_files_gives_a_warning(classifier, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert predict(classifier, [str(tmp_path / "empty")], 1, "jsonl")
    assert capsys.readouterr() == ("", f"warning: There is nothing to classify in {tmp_path / 'empty'}.\n")


def test_json_lines_contain_the_next_best_classes_with_all_digits(classifier, tmp_path, capsys):
    (tmp_path / "left.png").write_bytes(png(LEFT))
    assert predict(classifier, [str(tmp_path / "left.png")], 9, "jsonl")
    line = json.loads(capsys.readouterr().out)
    probabilities = classifier.probabilities(LEFT[None])[0]
    assert {part["label"]: part["probability"] for part in line["top"]} == pytest.approx(
        dict(zip(("left", "right", "neither"), probabilities.tolist(), strict=True)), rel=1e-6
    )
    assert (line["label"], line["probability"]) == ("left", line["top"][0]["probability"])


def test_the_table_and_csv_say_the_same(classifier, tmp_path, capsys):
    (tmp_path / "right.png").write_bytes(png(RIGHT))
    (tmp_path / "bad.png").write_bytes(b"no picture")
    paths = [str(tmp_path / "right.png"), str(tmp_path / "bad.png")]
    predict(classifier, paths, 2, "csv")
    right, bad = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (right["label"], right["label_2"], bad["label"]) == ("right", "left", "")
    assert "not a PNG" in bad["error"]
    predict(classifier, paths, 2, "table")
    head, right, bad = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "label", "probability", "others"]
    assert right.endswith("right.png  right        >99.9 %  left <0.1 %")
    assert re.match(r"\S+ +is not a PNG", bad)


def test_a_control_character_in_a_name_does_not_reach_the_terminal(classifier, tmp_path, capsys):
    (tmp_path / "a\n\x1b[31mb.png").write_bytes(png(RIGHT))
    predict(classifier, [str(tmp_path / "a\n\x1b[31mb.png")], 1, "table")
    _, row = capsys.readouterr().out.splitlines()
    assert r"a\n\x1b[31mb.png" in row


def test_a_line_break_in_the_name_of_a_class_splits_no_row(capsys):
    rows = _Table(2, ["a\nb", "c"])
    rows(Answer("x.png", (("a\nb", 0.75), ("c", 0.25))))
    rows(Answer("y.png", (("c", 0.75), ("a\nb", 0.25))))
    _, first, second = capsys.readouterr().out.splitlines()
    assert first.split()[1:] == [r"'a\nb'", "75.0", "%", "c", "25.0", "%"]
    assert second.split()[1:] == ["c", "75.0", "%", r"'a\nb'", "25.0", "%"]


def test_the_table_fits_into_a_narrow_terminal(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    (tmp_path / "right.png").write_bytes(png(RIGHT))
    predict(classifier, [str(tmp_path / "right.png")], 2, "table")
    head, right = capsys.readouterr().out.splitlines()
    assert right.startswith("…")
    assert len(right) <= 60
    assert head.index("label") == right.index("right  ")


def test_the_columns_of_the_table_are_aligned_for_wide_characters(classifier, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    paths = [tmp_path / "right.png", tmp_path / "猫と犬.png"]
    for path in paths:
        path.write_bytes(png(RIGHT))
    predict(classifier, [str(path) for path in paths], 1, "table")
    _, narrow, wide = capsys.readouterr().out.splitlines()
    columns = [cell_len(line[: line.rindex("right")]) for line in (narrow, wide)]
    assert columns[0] == columns[1]


def test_the_command_ends_when_its_output_is_closed(model, tmp_path):
    np.save(tmp_path / "many.npy", np.stack([RIGHT] * 400_000))
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "predict", "--model", model]
    began = os.times()
    with subprocess.Popen([*command, str(tmp_path / "many.npy")], stdout=subprocess.PIPE) as process:
        assert b"right" in process.stdout.readline()
    assert process.returncode == 0
    ended = os.times()
    assert ended.children_user - began.children_user < 3


def test_the_command_reads_a_pipe_and_its_exit_code_reports_errors(model):
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli import main; main()",
        "predict",
        "--model",
        model,
        "-",
    ]
    good = subprocess.run(command, input=png(RIGHT), capture_output=True, check=True)
    assert json.loads(good.stdout)["label"] == "right"
    bad = subprocess.run(command, input=b"no picture", capture_output=True, check=False)
    assert bad.returncode == 1
    assert "error" in json.loads(bad.stdout)


def test_in_a_terminal_a_bar_counts_while_the_answers_go_to_a_file(model, tmp_path):
    np.save(tmp_path / "many.npy", np.stack([RIGHT] * 300))
    command = [sys.executable, "-c", "from pipeline.cli import main; main()", "predict", "--model", model]
    ours, theirs = pty.openpty()
    with (tmp_path / "answers.jsonl").open("wb") as answers:
        process = subprocess.Popen([*command, str(tmp_path / "many.npy")], stdout=answers, stderr=theirs)
        os.close(theirs)
        shown = b""
        # Reading raises an error when the other side is closed.
        with suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.wait() == 0
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 300
    assert "Predicting" in shown.decode()
    assert "300" in shown.decode()
