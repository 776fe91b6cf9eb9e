"""The folders of tables and of the pictures that they name say which ones are for testing."""

from pictures import assert_holds, pixels, save, write


def test_the_folder_of_a_picture_sets_its_split(clone, tmp_path):
    rows = [["image", "label"]]
    for number in range(20):
        name = f"{'test' if number > 12 else 'train'}_images/s{number}.png"
        save(tmp_path / "scans" / name, number)
        rows.append([f"s{number}", number % 2])
    arrays = clone.added(write(tmp_path / "scans" / "labels.csv", rows))
    assert (len(arrays["train_labels"]), len(arrays["test_labels"])) == (13, 7)


def test_folders_of_splits_count_if_pictures_are_named_by_their_path_unless_they_are_classes(clone, tmp_path):
    rows, labelled = [["image", "label"]], {}
    for number in range(24):
        label = ("train", "car")[number % 2]
        name = f"{('train', 'val', 'test')[number % 3]}/{label}/{number}.png"
        save(tmp_path / "scans" / name, number)
        rows.append([name, label])
        labelled[tmp_path / "scans" / name] = 1 - number % 2
    arrays = clone.added(write(tmp_path / "scans" / "labels.csv", rows))
    assert_holds(arrays, labelled)
    assert (clone.conf("mine")["validation_images"], len(arrays["test_labels"])) == (8, 8)
    rows = [["image", "label"]]
    for number in range(20):
        label = ("train", "car")[number % 2]
        save(tmp_path / "cars" / label / f"{number}.png", number)
        rows.append([f"{label}/{number}.png", label])
    clone.add(write(tmp_path / "cars" / "all.csv", rows), name="cars")
    assert 0 not in clone.conf("cars")["sources"][0]["test_below"]


def test_a_table_in_the_folder_of_a_split_is_for_that_split(clone, tmp_path):
    labelled = {}
    for split in ("train", "test"):
        rows = [["file_name", "label"]]
        for number in range(8):
            path = tmp_path / "faces" / split / f"{number}.png"
            save(path, 10 * len(split) + number)
            rows.append([path.name, "ab"[number % 2]])
            labelled[path] = number % 2
        write(tmp_path / "faces" / split / "metadata.csv", rows)
    arrays = clone.added(tmp_path / "faces")
    assert_holds(arrays, labelled)
    tested = {pixels(path) for path in labelled if path.parent.name == "test"}
    assert {image.tobytes() for image in arrays["test_images"]} == tested
