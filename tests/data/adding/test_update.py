"""pipeline add-data run again on data that may have changed."""

import os
import shlex
import shutil

import numpy as np
import pytest
from pictures import save

from pipeline.errors import PipelineError


def test_an_unchanged_folder_is_recognised_without_reading_it(clone, pets, monkeypatch):
    clone.add(pets)
    monkeypatch.setattr("pipeline.data.adding.add.look", None)
    [line] = clone.add(pets)
    assert line.endswith("has not changed since conf/data/pets.yaml was written: 30 images.")


def test_a_new_modification_time_alone_is_no_change(clone, pets):
    clone.add(pets)
    before = clone.conf("pets")
    os.utime(pets / "cat" / "1.png")
    assert clone.add(pets)[-1] == "Everything is as pinned in conf/data/pets.yaml."
    assert clone.conf("pets") == before


def test_changes_are_reported_and_update_pins_them(clone, pets):
    clone.add(pets)
    before = clone.conf("pets")
    save(pets / "cat" / "new.png", 999)
    save(pets / "emu" / "1.png", 1001)
    (pets / "dog" / "3.png").unlink()
    (pets / "dog" / "4.png").rename(pets / "owl" / "from dog.png")
    save(pets / "owl" / "5.png", 2000)
    with pytest.raises(PipelineError, match=r"Nothing was written\. .*--update` pins what is there"):
        clone.add(pets)
    assert clone.conf("pets") == before
    lines = clone.add(pets, update=True)
    at = lines.index("Since conf/data/pets.yaml was written:")
    assert lines[at + 1 : at + 6] == [
        "  cat: 1 image added",
        "  emu: 1 image added",
        "  dog: 1 image removed",
        "  owl: 1 image changed",
        "  1 image relabelled from dog to owl",
    ]
    after = clone.conf("pets")
    assert after["classes"] == ["cat", "dog", "owl", "emu"]  # the old ones keep their numbers
    assert after["sources"][0]["test_below"][:3] == before["sources"][0]["test_below"]
    clone.fetch("pets")


def test_names_with_line_breaks_take_one_line_of_the_report(clone, pets):
    shutil.move(pets / "owl", pets / "two\nlines")
    shutil.copy(pets / "two\nlines" / "1.png", pets / "cat" / "\n.png")
    found = clone.add(pets)
    assert r"  'cat/\n.png' (cat) = 'two\nlines/1.png' ('two\nlines')" in found
    (pets / "two\nlines" / "2.png").unlink()
    save(pets / "two\nlines" / "3.png", 77)
    shutil.move(pets / "cat" / "4.png", pets / "two\nlines" / "moved.png")
    found += clone.add(pets, update=True)
    assert found[-5:-2] == [
        r"  'two\nlines': 1 image removed",
        r"  'two\nlines': 1 image changed",
        r"  1 image relabelled from cat to 'two\nlines'",
    ]
    assert not [line for text in found for line in text.split("\n") if line == "lines"]


def test_the_command_that_pins_a_change_repeats_the_options(clone, pets):
    clone.add(pets)
    options = {"image_size": "9x7", "resize": "crop", "test_fraction": 0.25}
    settings = (r"label_pattern=(cat|dog|owl)",)
    with pytest.raises(PipelineError, match="Nothing was written") as refused:
        clone.add(pets, settings=settings, **options)
    command = str(refused.value).split("`")[1]
    assert shlex.split(command)[3:] == [
        *("--name", "pets", "--image-size", "9x7", "--resize", "crop", "--test-fraction", "0.25"),
        *("--set", *settings, "--update"),
    ]


@pytest.mark.parametrize("written", ["../moved", "~/moved"])
def test_a_path_that_a_person_wrote_is_recognised(clone, pets, monkeypatch, written):
    clone.add(pets)
    pets.rename(pets.parent / "moved")
    with pytest.raises(PipelineError, match=r"describes other data.* in another place, change its `path`"):
        clone.add(pets.parent / "moved", name="pets")
    monkeypatch.setenv("HOME", str(pets.parent))
    file = clone.workspace.root / "conf" / "data" / "pets.yaml"
    file.write_text(file.read_text().replace(f'path: "{pets}"', f'path: "{written}"'))
    last = clone.add(pets.parent / "moved", name="pets")[-1]
    assert last == "Everything is as pinned in conf/data/pets.yaml."


@pytest.mark.parametrize("update", [False, True])
def test_a_folder_that_is_gone_is_named_with_the_place_to_change(clone, pets, update):
    clone.add(pets)
    pets.rename(pets.parent / "moved")
    with pytest.raises(PipelineError, match=r"no .*/pets\. .* change `path` in conf/data/pets\.yaml"):
        clone.add(pets, update=update)


def test_an_update_keeps_the_comments_of_the_user_or_says_that_it_cannot(clone, pets):
    clone.add(pets)
    file = clone.workspace.root / "conf" / "data" / "pets.yaml"
    text = file.read_text()
    mine = text.replace("timeout: 20.0", "# slow here\ntimeout: 40.0  # mine").replace(
        "  - kind", "  # theirs\n  - kind"
    )
    file.write_text(mine)
    save(pets / "no" / "1.png", 999)
    lines = clone.add(pets, update=True)
    assert not any("rewritten" in line for line in lines)
    after = file.read_text()
    assert after.startswith("# 31 images in 4 classes ")
    assert clone.conf("pets")["classes"] == ["cat", "dog", "owl", "no"]
    for comment in (
        "# slow here\ntimeout: 40.0  # mine",
        "  # theirs\n  - kind",
        "# in the order of the labels; pinned",
    ):
        assert comment in after
    changed = set(after.splitlines()) ^ set(mine.splitlines())
    assert {line.split()[0] for line in changed} <= {
        *("#", "classes:", "images:", "test_below:"),
        *("train_images:", "train_labels:", "test_images:", "test_labels:"),
    }
    clone.fetch("pets")

    file.write_text(after + "timeout: 30.0\n")
    save(pets / "no" / "2.png", 998)
    assert any("your comments and formatting are lost" in line for line in clone.add(pets, update=True))
    clone.fetch("pets")


def test_a_changed_folder_is_refused_with_both_counts_and_the_remedy(clone, pets):
    clone.add(pets)
    save(pets / "cat" / "new.png", 999)
    with pytest.raises(PipelineError) as refusal:
        clone.fetch("pets")
    assert "has 31 images now, but 30 are pinned" in str(refusal.value)
    assert f"`pipeline add-data {pets} --name pets --update`" in str(refusal.value)
    assert not clone.workspace.raw.exists()


def test_a_clone_that_did_not_pin_the_images_reports_only_their_numbers(clone, pets):
    clone.add(pets)
    shutil.rmtree(clone.workspace.scratch)
    save(pets / "cat" / "new.png", 999)
    lines = clone.add(pets, update=True)
    assert any("30 images were pinned, 31 images are there now" in line for line in lines)


def test_an_update_says_what_changed_only_as_far_as_it_is_known(clone, pets, tmp_path):
    clone.add(pets)
    lines = clone.add(pets, update=True, test_fraction=0.5)
    assert (
        "  no image was added, removed or changed: what changed is a setting, or which are for testing"
        in lines
    )
    rows = ["label,pixels", *(f"{number % 2},{number} 0 0 9" for number in range(20))]
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    clone.add(table)
    table.write_text("\n".join([*rows, "1,20 0 0 9"]))
    [line] = [line for line in clone.add(table, update=True) if "were pinned" in line]
    assert line.endswith(
        "it is not known which ones changed, since a source of this kind is pinned as a whole"
    )


def test_later_updates_keep_the_test_fraction(clone, pets):
    clone.add(pets, test_fraction=0.5)
    for number in range(10):
        save(pets / "emu" / f"{number}.png", 900 + number)
    clone.add(pets, update=True)
    assert np.bincount(clone.fetch("pets")["test_labels"]).tolist() == [5, 5, 5, 5]
    clone.add(pets, update=True, colour="grey")  # All pixels change, so all test images are chosen again.
    assert np.bincount(clone.fetch("pets")["test_labels"]).tolist() == [5, 5, 5, 5]
    clone.add(pets, update=True, test_fraction=0.2)
    assert np.bincount(clone.fetch("pets")["test_labels"]).tolist() == [2, 2, 2, 2]
    assert clone.conf("pets")["sources"][0]["test_fraction"] is None


def test_a_reader_edited_by_hand_is_pinned_by_update(clone, pets):
    clone.add(pets)
    path = clone.workspace.root / "conf" / "data" / "pets.yaml"
    path.write_text(path.read_text().replace("colour: rgb", "colour: grey"))
    complaint = r"its train_images has the SHA-256.*`pipeline add-data PATH --name pets --update` if that"
    with pytest.raises(PipelineError, match=f"(?s){complaint}"):
        clone.fetch("pets")
    clone.add(pets, update=True)
    assert clone.fetch("pets")["train_images"].shape == (24, 9, 9)


def test_classes_edited_by_hand_are_pinned_by_update_with_limits_of_their_own(clone, pets):
    clone.add(pets)
    path = clone.workspace.root / "conf" / "data" / "pets.yaml"
    path.write_text(path.read_text().replace('["cat", "dog", "owl"]', '["cat", "owl"]'))
    with pytest.raises(PipelineError, match=r"the class 'dog', which is not in data\.classes: `.*--update`"):
        clone.fetch("pets")
    clone.add(pets, update=True)
    conf = clone.conf("pets")
    assert (conf["classes"], len(conf["sources"][0]["test_below"])) == (["cat", "owl", "dog"], 3)
    clone.fetch("pets")


def test_an_existing_file_is_not_overwritten_unless_forced(clone, pets, tmp_path):
    with pytest.raises(PipelineError, match=r"conf/data/mnist\.yaml exists and describes other data"):
        clone.add(pets, name="mnist")
    clone.add(pets, name="mnist", force=True)
    assert clone.conf("mnist")["classes"] == ["cat", "dog", "owl"]
    (clone.workspace.root / "conf" / "data" / "odd.yaml").write_text("a: [")
    with pytest.raises(PipelineError, match="does not describe a data set"):
        clone.add(pets, name="odd")
    with pytest.raises(
        PipelineError, match=r"a data set \(missing or wrong: name, classes, reader\): choose another"
    ):
        clone.add(pets, name="idx")
    with pytest.raises(PipelineError, match=r"no conf/data/other\.yaml to update"):
        clone.add(pets, name="other", update=True)
