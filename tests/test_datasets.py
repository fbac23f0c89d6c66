"""Every data set that the folder holds, the cut and the scale that all share, and what happens to damaged files."""

import gzip
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from test_cifar10 import write_cifar10

import harness
from harness.datasets import (
    AT_ONCE,
    SPLIT_SEED,
    DataError,
    Examples,
    cifar10,
    data_home,
    fashion_mnist,
    load,
    mnist1d,
    prepare,
)
from harness.datasets.fashion_mnist import DEBIAN, FILES

SIZES = {
    "digits": (1293, 144, 360),
    "mnist1d": (3600, 400, 10_000),
    "fashion_mnist": (54_000, 6_000, 10_000),
    "fashion14": (9_000, 1_000, 10_000),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """An empty $NORMORDER_DATA, so that what is generated is generated here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NORMORDER_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module", params=harness.names("datasets"))
def data(request, home):
    if request.param in ("fashion_mnist", "fashion14"):
        need_fashion_mnist()
    if request.param == "cifar10":
        request.getfixturevalue("small_cifar10")
    if request.param == "npz":
        rng = np.random.default_rng(0)
        x, y = rng.standard_normal((500, 3, 8)), np.arange(500) % 4
        np.savez(data_home() / "mine.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    return load("npz:mine" if request.param == "npz" else request.param)


@pytest.fixture(scope="module")
def small_cifar10(home):
    """Files of CIFAR-10 with 100 rows in place of 10,000, which take 184 MB."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar10, "ROWS", 100)
        write_cifar10(data_home() / cifar10.FOLDER)
        yield


def need_fashion_mnist():
    if not DEBIAN.exists():
        reason = f"{DEBIAN} is missing: install Debian's dataset-fashion-mnist"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)


# What every data set keeps


def parts(data):
    return [(data.x_train, data.y_train), (data.x_val, data.y_val), (data.x_test, data.y_test)]


def test_a_data_set_is_tensors_of_examples_and_classes(data):
    for x, y in parts(data):
        assert (x.dtype, y.dtype, y.shape) == (np.float32, np.int64, (len(x),))
        assert x.shape[1:] == data.shape
        assert x.flags.c_contiguous
        assert np.isfinite(x).all()


def test_labels_are_0_to_classes_less_1(data):
    for _, y in parts(data):
        assert sorted(set(y.tolist())) == list(range(data.classes))


def test_a_tenth_of_the_training_examples_is_held_out(data):
    train, val = len(data.x_train), len(data.x_val)
    assert val == round((train + val) * 0.1)


def test_each_channel_is_standardised_by_the_training_part(data):
    axes = (0, *range(2, data.x_train.ndim))
    np.testing.assert_allclose(data.x_train.mean(axes, dtype=float), 0, atol=1e-6)
    np.testing.assert_allclose(data.x_train.std(axes, dtype=float), 1, atol=1e-6)
    # the other parts have their own mean and sd: near these, not equal to them
    for x in (data.x_val, data.x_test):
        assert 0 < np.abs(x.mean(axes, dtype=float)).max() < 0.2
        assert 0 < np.abs(x.std(axes, dtype=float) - 1).max() < 0.2


def test_what_may_be_mirrored_is_what_its_file_states(data):
    assert data.flips == harness.mirrors(data.name.partition(":")[0])
    assert data.flips == (data.name in ("cifar10", "fashion_mnist", "fashion14"))


def test_a_data_set_loads_twice_with_one_checksum(data):
    assert load(data.name).checksum == data.checksum


@pytest.mark.parametrize("name", SIZES)
def test_the_parts_have_their_stated_sizes(name, home):
    if name.startswith("fashion"):
        need_fashion_mnist()
    assert tuple(len(x) for x, _ in parts(load(name))) == SIZES[name]


# The cut and the scale


def numbered(n=50):
    """Examples whose only number is their place."""
    x, y = np.arange(n, dtype=float)[:, None], np.arange(n) % 2
    return Examples(x, y, x + 1000, y, classes=2)


def places(part, data):
    """The places of standardised `numbered` examples, from the ends of the test set, which are known."""
    low, high = data.x_test[[0, -1], 0]
    return (np.round((part[:, 0] - low) / (high - low) * (len(data.x_test) - 1)) + 1000).astype(int)


def test_training_and_validation_examples_are_disjoint_and_complete():
    data = prepare("x", numbered())
    train, val = places(data.x_train, data), places(data.x_val, data)
    assert sorted([*train, *val]) == list(range(50))
    assert (data.y_train == train % 2).all()
    assert (data.y_val == val % 2).all()


def test_the_cut_is_the_same_for_ever():
    data = prepare("x", numbered())
    assert SPLIT_SEED == 20_150_211
    assert places(data.x_val, data).tolist() == [6, 9, 39, 47, 49]


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e6 / 7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_constant_channel_becomes_0_and_what_differs_from_it_keeps_its_distance(value, dtype):
    x_test = np.full((50, 1), value, dtype)
    x_test[0] += 2
    data = prepare("x", numbered()._replace(x_train=np.full((50, 1), value, dtype), x_test=x_test))
    assert np.abs(data.x_train).max() < 1e-9
    assert data.x_test.ravel().tolist() == pytest.approx([2, *[0] * 49], abs=0.02)


def test_each_channel_has_its_own_scale():
    x = np.random.default_rng(0).standard_normal((200, 2, 5)) * [[1], [100]] + [[0], [50]]
    data = prepare("x", Examples(x, np.zeros(200, int), x, np.zeros(200, int), classes=1))
    np.testing.assert_allclose(data.x_train.std((0, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(data.x_train.mean((0, 2)), 0, atol=1e-5)


def test_examples_are_scaled_in_parts_as_they_would_be_at_once():
    x = np.random.default_rng(0).integers(256, size=(2 * AT_ONCE + 7, 1, 2), dtype=np.uint8)
    data = prepare("x", Examples(x, np.zeros(len(x), int), x, np.zeros(len(x), int), classes=1))
    train = x[np.random.default_rng(SPLIT_SEED).permutation(len(x))[round(len(x) / 10) :]]
    once = ((x - train.mean((0, 2), keepdims=True)) / train.std((0, 2), keepdims=True, dtype=float)).astype(np.float32)
    np.testing.assert_array_equal(data.x_test, once)


@pytest.mark.parametrize("number", [np.inf, np.nan, 1e300])
def test_a_number_that_float32_does_not_hold_is_an_error(number):
    examples = numbered()
    examples.x_test[3] = number
    with pytest.raises(DataError, match="data set x: a number is not finite, or too far from those of the training"):
        prepare("x", examples._replace(x_train=examples.x_train.copy()))


@pytest.mark.parametrize("field", ["x_train", "y_train", "x_test", "y_test"])
def test_the_checksum_covers_every_array(field):
    examples = numbered()
    changed = getattr(examples, field).copy()
    changed[3] = 1 - changed[3]
    assert prepare("x", examples).checksum != prepare("x", examples._replace(**{field: changed})).checksum


def test_data_live_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    assert data_home() == tmp_path
    monkeypatch.delenv("NORMORDER_DATA")
    assert data_home() == Path.home() / ".cache" / "normorder"


# MNIST-1D


@pytest.fixture(scope="module")
def made():
    """What the package of MNIST-1D makes by default. It seeds numpy and random for all, so their states are put back."""
    from mnist1d.data import get_dataset_args, make_dataset  # imports matplotlib, which costs a second

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 the package seeds them
    standard = make_dataset(get_dataset_args())
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    return standard


def test_training_examples_of_mnist1d_are_those_that_its_package_makes(home, made):
    examples = mnist1d.load()
    np.testing.assert_array_equal(examples.x_train[:, 0], made["x"].astype(np.float32))
    np.testing.assert_array_equal(examples.y_train, made["y"])


def test_test_examples_of_mnist1d_are_new_and_in_the_units_of_the_others(home, made):
    examples = mnist1d.load()
    assert not {tuple(x) for x in examples.x_test[:, 0].round(4)} & {tuple(x) for x in examples.x_train[:, 0].round(4)}
    assert examples.x_test.std() == pytest.approx(made["x_test"].std(), rel=0.03)
    assert np.bincount(examples.y_test).tolist() == [1000] * 10


def test_generating_mnist1d_leaves_global_random_state_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))

    random.seed(7)
    np.random.seed(7)  # noqa: NPY002 the global state is what is tested

    def states():
        return random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

    before = states()
    load("mnist1d")
    assert states() == before
    assert [path.suffix for path in tmp_path.iterdir()] == [".npz"]  # nothing temporary stays


def flip(content, at):
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


DAMAGE = {
    "empty": lambda content: b"",
    "garbage": lambda content: b"nothing of the kind",
    "truncated": lambda content: content[: len(content) // 2],
    "one byte near the start": lambda content: flip(content, 65),  # among the code lengths of the first block
    "one byte in the middle": lambda content: flip(content, len(content) // 2),
    "one byte near the end": lambda content: flip(content, len(content) - 10),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_of_mnist1d_is_named(damage, home, monkeypatch, tmp_path):
    load("mnist1d")
    cache = next(data_home().glob("mnist1d*.npz"))
    (tmp_path / cache.name).write_bytes(DAMAGE[damage](cache.read_bytes()))
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=cache.name + r".*delete it to have it made again"):
        load("mnist1d")


def test_a_cache_of_mnist1d_with_other_numbers_is_named(home, monkeypatch, tmp_path):
    load("mnist1d")
    cache = next(data_home().glob("mnist1d*.npz"))
    arrays = dict(np.load(cache))
    arrays["x_test"][5, 0, 5] += 1
    np.savez(tmp_path / cache.name, **arrays)
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=cache.name + ": wrong checksum"):
        load("mnist1d")


# Fashion-MNIST


def test_fashion_mnist_is_the_real_thing(home):
    need_fashion_mnist()
    data = load("fashion_mnist")
    assert data.shape == (1, 28, 28)
    assert np.bincount(np.concatenate([data.y_train, data.y_val])).tolist() == [6000] * 10
    assert np.bincount(data.y_test).tolist() == [1000] * 10
    assert data.y_test[:5].tolist() == [9, 2, 1, 1, 6]  # boot, pullover, trousers, trousers, shirt


@pytest.mark.parametrize("folder", [".", "fashion-mnist"])
def test_a_wrong_file_of_fashion_mnist_is_named(folder, monkeypatch, tmp_path):
    name = next(iter(FILES))
    path = tmp_path / folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(bytes(1000)))
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"{name}: wrong checksum, so not the file of Fashion-MNIST"):
        load("fashion_mnist")


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_fashion_mnist_is_named(damage, monkeypatch, tmp_path):
    name = next(iter(FILES))
    content = gzip.compress(np.random.default_rng(0).integers(100, size=5000, dtype=np.uint8).tobytes())
    (tmp_path / name).write_bytes(DAMAGE[damage](content))
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    with pytest.raises(DataError, match=name):
        load("fashion_mnist")


def test_fashion14_is_means_of_the_first_images(home):
    need_fashion_mnist()
    whole, small = fashion_mnist.load(), load("fashion14")
    assert small.shape == (1, 14, 14)
    assert small.y_test.tolist() == whole.y_test.tolist()
    taken = np.random.default_rng(SPLIT_SEED).permutation(10_000)[1000:]  # of all 60,000, none beyond the first 10,000
    assert small.y_train.tolist() == whole.y_train[taken].tolist()
    x = whole.x_train[taken].astype(float)
    x = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4
    np.testing.assert_allclose(small.x_train, (x - x.mean()) / x.std(), rtol=1e-5, atol=1e-6)
