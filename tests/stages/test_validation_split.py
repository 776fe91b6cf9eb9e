"""Which images preprocess takes for validation, and which for training."""

import numpy as np
import pytest
from raw_arrays import composed, config, save

from pipeline.artifacts.processed import read_dataset, read_split
from pipeline.artifacts.workspace import SPLITS, Workspace
from pipeline.data.division import divide
from pipeline.errors import PipelineError
from pipeline.stages import preprocess


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


def test_the_last_training_images_become_the_validation_images(workspace):
    raw = save(workspace)
    preprocess.run(config(), workspace)
    flat = raw["train_images"].reshape(40, 20)
    for split, images, labels in [
        ("train", flat[:30], raw["train_labels"][:30]),
        ("validation", flat[30:], raw["train_labels"][30:]),
        ("test", raw["test_images"].reshape(7, 20), raw["test_labels"]),
    ]:
        found = read_split(workspace, split)
        np.testing.assert_array_equal(found[0], images)
        np.testing.assert_array_equal(found[1], labels)
        assert (found[0].dtype, found[1].dtype) == (np.uint8, np.int32)


# floor(40 * (1 - fraction)), which is what Keras's validation_split keeps for training.
@pytest.mark.parametrize(("fraction", "kept"), [(0.1, 36), (0.33, 26), (0.01, 39), (0.9, 3)])
@pytest.mark.parametrize("split", ["last", "stratified"])
def test_the_split_is_rounded_as_keras_rounds_it(workspace, fraction, kept, split):
    save(workspace)
    if (fraction, split) == (0.01, "stratified"):
        with pytest.raises(PipelineError, match=r"preprocess\.validation_split=stratified"):
            preprocess.run(config(validation_fraction=fraction, validation_split=split), workspace)
        return
    preprocess.run(config(validation_fraction=fraction, validation_split=split), workspace)
    counts = read_dataset(workspace).counts
    assert (counts["train"].total, counts["validation"].total) == (kept, 40 - kept)


@pytest.mark.parametrize("split", ["last", "stratified"])
def test_without_a_fraction_the_validation_split_is_empty(workspace, split):
    save(workspace)
    preprocess.run(config(validation_fraction=0.0, validation_split=split), workspace)
    assert [array.shape for array in read_split(workspace, "validation")] == [(0, 20), (0,)]
    assert read_dataset(workspace).counts["train"].total == 40


def test_a_stratified_split_keeps_proportions_and_order_and_follows_its_seed(workspace):
    labels = np.sort(np.arange(40) % 2 + (np.arange(40) % 4 == 3)).astype(np.int32)
    # The level of each image is its index.
    images = np.repeat(np.arange(40, dtype=np.uint8), 20).reshape(40, 5, 4)
    save(workspace, train_images=images, train_labels=labels)

    def chosen(seed: int) -> list[int]:
        preprocess.run(config(validation_split="stratified", seed=seed), workspace)
        train, validation = (read_split(workspace, split)[0][:, 0].tolist() for split in SPLITS[:2])
        assert sorted(train + validation) == list(range(40))
        assert (train, validation) == (sorted(train), sorted(validation))
        return validation

    assert chosen(0) == chosen(0) != chosen(1)
    counts = read_dataset(workspace).counts
    assert counts["train"].per_class == (15, 8, 7)
    assert counts["validation"].per_class == (5, 2, 3) or counts["validation"].per_class == (5, 3, 2)


def test_the_validation_images_that_the_data_set_has_are_kept(workspace):
    raw = save(workspace)
    preprocess.run(config(validation_split="given", validation_images=7), workspace)
    np.testing.assert_array_equal(read_split(workspace, "validation")[1], raw["train_labels"][33:])
    assert read_dataset(workspace).counts["train"].total == 33
    with pytest.raises(PipelineError, match=r"has no validation images .* hash, stratified or last"):
        preprocess.run(config(validation_split="given"), workspace)


def test_a_split_by_hash_is_stable_when_images_are_added_and_keeps_copies_together(workspace):
    images = np.random.default_rng(0).integers(0, 256, (400, 5, 4), dtype=np.uint8)
    images[300:] = images[100:200]

    def validated(count: int) -> set[bytes]:
        labels = (np.arange(count) % 3).astype(np.int32)
        save(workspace, train_images=images[:count], train_labels=labels)
        preprocess.run(config(validation_split="hash"), workspace)
        train, validation = (
            {image.tobytes() for image in read_split(workspace, split)[0]} for split in SPLITS[:2]
        )
        assert not train & validation
        assert len(train | validation) == min(count, 300)
        return validation

    few, many = validated(150), validated(400)
    assert few == many & {image.tobytes() for image in images[:150]}
    assert 50 < len(many) < 100


def test_a_split_by_hash_leaves_each_class_a_training_image(workspace):
    save(workspace, train_labels=np.array([0] * 38 + [1, 2], np.int32))
    preprocess.run(config(validation_split="hash", validation_fraction=0.97), workspace)
    assert min(read_dataset(workspace).counts["train"].per_class) >= 1


def test_a_split_by_hash_takes_chances_below_the_fraction_and_leaves_each_class_its_highest():
    # The copy (3) of the image that the first class keeps (1) is for training too, so that the second class
    # has one anyway; a chance of just the fraction (5) is for training.
    chances = np.array([0.125, 0.375, 0.25, 0.375, 0.4375, 0.5, 0.75, 0.46875])
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2], np.int32)
    by_hash = {"validation_split": "hash", "validation_fraction": 0.5}
    settings = composed().preprocess.model_copy(update=by_hash)
    prints = (chances * 2.0**64).astype(np.uint64)
    train, validation = divide(labels, settings, 0, lambda: prints)
    assert (train.tolist(), validation.tolist()) == ([1, 3, 5, 6], [0, 2, 4, 7])


def test_a_split_by_hash_chooses_one_image_and_its_copies_if_the_fraction_chooses_none():
    settings = composed().preprocess.model_copy(
        update={"validation_split": "hash", "validation_fraction": 0.1}
    )

    def chosen(chances, labels):
        prints = (np.array(chances) * 2.0**64).astype(np.uint64)
        return divide(np.array(labels, np.int32), settings, 0, lambda: prints)[1].tolist()

    assert chosen([0.5, 0.25, 0.75, 0.25], [0, 0, 1, 0]) == [1, 3]
    # The only images of their classes are for training.
    assert chosen([0.5, 0.75, 0.25, 0.25, 0.625], [0, 0, 0, 1, 2]) == [0]
    assert chosen([0.5, 0.25], [0, 1]) == []


def test_a_smaller_share_of_the_training_images_is_a_subset_of_a_larger_one(workspace):
    save(workspace)
    shares = []
    for fraction in (0.1, 0.4, 1.0):
        preprocess.run(config(train_fraction=fraction), workspace)
        counts = read_dataset(workspace).counts
        assert counts["train"].per_class == (max(1, round(10 * fraction)),) * 3
        assert (counts["validation"].total, counts["test"].total) == (10, 7)
        shares.append({image.tobytes() for image in read_split(workspace, "train")[0]})
    assert shares[0] < shares[1] < shares[2]
