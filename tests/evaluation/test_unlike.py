import numpy as np
import pytest

from linear_model import linear_model
from pipeline.artifacts.onnx_file import load
from pipeline.evaluation.unlike import measure, scores


def blobs(number, rng, shape=(12, 10)):
    """Return images with a soft spot somewhere in the middle."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    middle = rng.uniform(4, 7, (2, number, 1, 1))
    distance = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2
    levels = 230 * np.exp(-distance / rng.uniform(3, 5, (number, 1, 1)))
    return np.stack(3 * [levels.astype(np.uint8)], axis=3) if len(shape) == 3 else levels.astype(np.uint8)


@pytest.mark.parametrize("shape", [(12, 10), (12, 10, 3)], ids=["grey", "rgb"])
def test_one_percent_of_similar_images_and_most_other_images_are_called_unlike(tmp_path, shape):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(int(np.prod(shape)), 3))
    classifier = load(linear_model(tmp_path / "model.onnx", kernel, image_shape=shape))
    train, held_out, test = (blobs(number, rng, shape) for number in (2000, 1000, 3000))
    unlike = measure(classifier, train, held_out)

    def share(images):
        found = scores(unlike, images, classifier.probabilities(images))
        return (found > unlike.threshold).mean()

    assert share(held_out) == pytest.approx(0.01, abs=0.001)
    assert share(test) == pytest.approx(0.01, abs=0.008)
    assert share(255 - test) == 1
    assert share(rng.integers(0, 256, test.shape, dtype=np.uint8)) == 1
    assert share(np.roll(test, 5, axis=1)) > 0.9
    assert share(np.zeros_like(test)) == 1
    assert (unlike.images, unlike.brightest) == (1000, train.max())


def test_the_mean_score_of_the_training_images_is_the_number_of_independent_properties(tmp_path):
    rng = np.random.default_rng(0)
    classifier = load(linear_model(tmp_path / "model.onnx", rng.normal(size=(144, 3)), image_shape=(12, 12)))
    noise = rng.integers(0, 256, (2000, 12, 12)) * rng.uniform(0.2, 1, (2000, 1, 1))
    images = noise.astype(np.uint8)
    found = scores(measure(classifier, images, images), images, classifier.probabilities(images))
    # Of 23, since the brightness is the mean of the 16 parts; a little less, to allow for such dependencies.
    assert 21.5 < found.mean() < 22


@pytest.mark.parametrize("shape", [(12, 8), (12, 8, 3)], ids=["grey", "rgb"])
def test_the_properties_are_what_they_are_called(tmp_path, shape):
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(int(np.prod(shape)), 3)) / 10
    classifier = load(linear_model(tmp_path / "model.onnx", kernel, image_shape=shape))
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    same = np.stack([image, image])
    levels = image / 255 if len(shape) == 2 else (image / 255).mean(axis=2)
    sureness = float(classifier.probabilities(same).max())
    assert 0.35 < sureness < 0.999
    expected = {
        "brightness": levels.mean(),
        "contrast": levels.std(),
        "edges down": np.abs(np.diff(levels, axis=0)).mean(),
        "edges across": np.abs(np.diff(levels, axis=1)).mean(),
        "bright": (levels > 0.9).mean(),
        "dark": (levels < 0.1).mean(),
        "confidence": np.log(sureness / (1 - sureness)),
    }
    regions = levels.reshape(4, 3, 4, 2).mean(axis=(1, 3)).ravel()
    found = measure(classifier, same, same).mean
    np.testing.assert_allclose(found, [*expected.values(), *regions], rtol=1e-4)


def test_an_image_alone_has_the_score_that_it_has_among_others(tmp_path):
    rng = np.random.default_rng(3)
    classifier = load(linear_model(tmp_path / "model.onnx", rng.normal(size=(120, 3)), image_shape=(12, 10)))
    images = blobs(50, rng)
    unlike = measure(classifier, images, images)
    together, alone = (scores(unlike, some, classifier.probabilities(some)) for some in (images, images[:1]))
    assert alone == pytest.approx(together[:1])


@pytest.mark.parametrize(("number", "rate"), [(36, 1 / 37), (98, 1 / 99), (99, 0.01), (400, 0.01)])
def test_the_stated_rate_is_one_that_few_images_can_show(tmp_path, number, rate):
    rng = np.random.default_rng(1)
    classifier = load(linear_model(tmp_path / "model.onnx", rng.normal(size=(120, 3)), image_shape=(12, 10)))
    held_out = blobs(number, rng)
    unlike = measure(classifier, blobs(1000, rng), held_out)
    assert unlike.false_alarm_rate == pytest.approx(rate, rel=1e-5)
    above = scores(unlike, held_out, classifier.probabilities(held_out)) > unlike.threshold * (1 + 1e-5)
    # Of 100 values, the new one included, one is above the highest of the other 99.
    assert above.sum() == number // 100


def test_images_of_one_pixel_and_identical_training_images_are_no_error(tmp_path):
    classifier = load(linear_model(tmp_path / "model.onnx", np.ones((1, 2))))
    same = np.full((30, 1, 1), 7, np.uint8)
    unlike = measure(classifier, same, same)
    assert np.isfinite(unlike.precision).all()
    assert not (scores(unlike, same, classifier.probabilities(same)) > unlike.threshold).any()


@pytest.mark.parametrize("number", [40, 400])
def test_without_held_out_images_few_training_images_call_no_more_new_ones_unlike(tmp_path, number):
    shares, rates = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        kernel = rng.normal(size=(120, 3))
        classifier = load(linear_model(tmp_path / f"{seed}.onnx", kernel, image_shape=(12, 10)))
        unlike = measure(classifier, blobs(number, rng))
        new = blobs(500, rng)
        shares.append((scores(unlike, new, classifier.probabilities(new)) > unlike.threshold).mean())
        rates.append(unlike.false_alarm_rate)
    assert np.mean(shares) < 1.5 * np.mean(rates)


@pytest.mark.parametrize("number", [2, 5, 6, 7])
def test_very_few_training_images_have_a_threshold(tmp_path, number):
    rng = np.random.default_rng(0)
    classifier = load(linear_model(tmp_path / "model.onnx", rng.normal(size=(120, 3)), image_shape=(12, 10)))
    assert np.isfinite(measure(classifier, blobs(number, rng)).threshold)
