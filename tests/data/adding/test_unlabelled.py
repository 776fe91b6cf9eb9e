"""Pictures without class folders: their names may contain the class, or the message says what to do."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
from pictures import dog_breeds, save

from pipeline.data.names import read_pictures
from pipeline.errors import PipelineError


def cats_and_dogs(folder: Path) -> None:
    for number in range(10):
        for at, label in enumerate(("cat", "great_dane")):
            save(folder / "train" / f"{label}.{number}.png", 10 * at + number)
    save(folder / "test1" / "1.png", 99)


@pytest.mark.parametrize("given", ["", "train", "zip"])
def test_if_file_names_contain_the_class_the_message_says_how_to_read_it(clone, tmp_path, given):
    cats_and_dogs(tmp_path / "pets")
    path = tmp_path / "pets" / given
    if given == "zip":
        path = Path(shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "pets"))
    with pytest.raises(
        PipelineError, match="such as cat and great_dane, add --set 'label_pattern"
    ) as refused:
        clone.add(path, name="mine")
    typed = re.search("--set '(.*)'", str(refused.value))[1]
    lines = clone.add(path, name="mine", settings=(typed,))
    if given != "train":
        assert "  test1/1.png has no class in its name" in lines
    arrays = clone.fetch("mine")
    assert clone.conf("mine")["classes"] == ["cat", "great_dane"]
    for split in ("train", "test"):
        names = read_pictures(clone.workspace.raw).names[f"{split}_names"]
        assert ["great" in name for name in names] == arrays[f"{split}_labels"].astype(bool).tolist()


@pytest.mark.parametrize("pattern", ["(", "cat", "(a)(b)", "5"])
def test_a_pattern_without_one_group_is_refused(clone, tmp_path, pattern):
    cats_and_dogs(tmp_path / "pets")
    with pytest.raises(PipelineError, match=r"not a valid regular expression|needs one group"):
        clone.add(tmp_path / "pets", settings=(f"label_pattern={pattern}",))


def test_folders_of_splits_are_not_classes_and_a_table_in_an_archive_is_named(clone, tmp_path):
    dog_breeds(tmp_path / "dogs")
    path = shutil.make_archive(str(tmp_path / "dogs"), "zip", tmp_path / "dogs")
    with pytest.raises(
        PipelineError, match=r"in test and train, which are splits.*If labels\.csv or prices\.csv has the"
    ):
        clone.add(path, name="mine")


def test_a_single_folder_of_a_split_is_no_class(clone, tmp_path):
    for number in range(4):
        save(tmp_path / "pets" / "train" / f"{number}.png", number)
    with pytest.raises(PipelineError, match=r"its pictures are in train, which is a split, not a class"):
        clone.add(tmp_path / "pets")


def test_a_workbook_is_refused_with_the_remedy(clone, tmp_path):
    with zipfile.ZipFile(tmp_path / "table.xlsx", "w") as file:
        file.writestr("[Content_Types].xml", "")
    with pytest.raises(PipelineError, match="is an Excel workbook: save its table as CSV"):
        clone.add(tmp_path / "table.xlsx")
