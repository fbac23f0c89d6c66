"""What a cell sees of a data set: nested sizes and nested wrong labels, used wherever a cell is planned or trained."""

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grids import Cell
from harness.datasets import DataError, Examples, prepare
from harness.engine import graph, marker, shape
from harness.plan import Trial, seeds_in_engine, work
from harness.seen import misfit, seen
from harness.training import train
from harness.trial import run_trial

PROVENANCE = {"commit": "", "versions": "test"}


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 1}
    return Cell(**{**defaults, "width": 8, "batch": 10, "epochs": 2, "lr": 0.05, **fields})


def numbered(n=2000, classes=5):
    x, y = np.arange(n, dtype=float)[:, None], np.arange(n) % classes
    return prepare("x", Examples(x, y, x[:20], y[:20], classes))


DATA = numbered()
EXAMPLES = len(DATA.x_train)  # 1,800
sizes, noises = st.integers(1, EXAMPLES), st.floats(0, 1, exclude_max=True)


def same(one, other):
    return all(np.array_equal(one.metrics[name], other.metrics[name]) for name in one.metrics) and all(
        np.array_equal(a[name], b[name], equal_nan=True)
        for a, b in zip(one.curves, other.curves, strict=True)
        for name in ("loss", "accuracy", "gradient_norm")
    )


# Subsets and noise


@given(sizes, sizes, noises)
def test_smaller_training_sets_are_within_larger_ones(a, b, noise):
    small, large = (seen(DATA, make(train_size=size, label_noise=noise)) for size in sorted((a, b)))
    assert len(small.x_train) == min(a, b)
    assert np.array_equal(small.x_train, large.x_train[: len(small.x_train)])
    assert np.array_equal(small.y_train, large.y_train[: len(small.y_train)])


@given(noises, noises, sizes)
def test_what_is_wrong_at_one_level_is_wrong_in_the_same_way_at_each_higher_one(a, b, size):
    less, more = (seen(DATA, make(train_size=size, label_noise=noise)).y_train for noise in sorted((a, b)))
    wrong = less != DATA.y_train[:size]
    assert np.array_equal(less[wrong], more[wrong])


@pytest.mark.parametrize("noise", [0.1, 0.4, 0.9])
def test_so_many_labels_are_another_class_each_as_often_as_the_others(noise):
    data = numbered(n=40_000)
    y = seen(data, make(label_noise=noise)).y_train
    wrong = y != data.y_train
    n = len(y)
    assert wrong.mean() == pytest.approx(noise, abs=4 * np.sqrt(noise * (1 - noise) / n))  # 4 standard errors
    away = np.bincount((y - data.y_train)[wrong] % 5, minlength=5)
    assert away[0] == 0
    assert away[1:] == pytest.approx([wrong.sum() / 4] * 4, abs=4 * np.sqrt(wrong.sum() * 3 / 16))


def test_wrong_labels_are_the_same_for_ever():
    y = seen(DATA, make(label_noise=0.3)).y_train[:12]
    assert (y - DATA.y_train[:12]).tolist() == [0, 0, -2, 0, 1, 0, 0, -3, 0, -1, 0, 0]


def test_only_training_examples_change_and_images_are_not_copied():
    part = seen(DATA, make(train_size=100, label_noise=0.5))
    for name in ("x_val", "y_val", "x_test", "y_test", "checksum", "classes", "shape", "name"):
        assert getattr(part, name) is getattr(DATA, name) or getattr(part, name) == getattr(DATA, name)
    assert np.shares_memory(part.x_train, DATA.x_train)
    assert np.shares_memory(seen(DATA, make(train_size=100)).y_train, DATA.y_train)


def test_a_cell_of_defaults_sees_the_whole_and_a_part_is_made_once():
    assert seen(DATA, make()) is DATA
    part = seen(DATA, make(train_size=70, label_noise=0.5))
    assert seen(DATA, make(train_size=70, label_noise=0.5, activation="tanh")) is part
    assert seen(part, make(train_size=70, label_noise=0.5)) is part


def test_a_part_is_not_cut_again():
    with pytest.raises(AssertionError, match="a part"):
        seen(seen(DATA, make(train_size=70)), make(train_size=60))


def test_a_data_set_is_sent_without_its_parts():
    data = numbered()
    before = len(pickle.dumps(data))
    seen(data, make(train_size=900, label_noise=0.5))
    assert len(pickle.dumps(data)) == before


# Everywhere


def test_cells_of_one_data_set_are_trained_on_what_each_sees(blobs):
    data = blobs(train=200)
    for fields in ({"train_size": 30}, {"train_size": 47, "label_noise": 0.4}, {"label_noise": 0.4}):
        cell = make(**fields)
        part = seen(data, cell)
        by_hand = dataclasses.replace(data, x_train=part.x_train.copy(), y_train=part.y_train.copy())
        plain = cell.model_copy(update={"train_size": 0, "label_noise": 0.0})
        assert same(train(cell, (0, 3), data), train(plain, (0, 3), by_hand))
        assert not same(train(cell, (0, 3), data), train(plain, (0, 3), data))


def test_training_metrics_are_of_the_labels_that_were_trained_with(blobs):
    data = blobs(train=400)
    training = train(make(label_noise=0.4, epochs=6), (0, 1), data)
    wrong = (seen(data, make(label_noise=0.4)).y_train != data.y_train).mean()
    assert (training.metrics["test_accuracy"] > 0.9).all()  # of right labels
    assert training.metrics["train_accuracy"] == pytest.approx([1 - wrong] * 2, abs=0.06)


def test_rows_tell_the_examples_that_were_used_and_the_whole_set(blobs):
    data = blobs(train=200)
    rows = [
        run_trial(Trial(make(train_size=size), (0,)), data, PROVENANCE).tables["runs"].to_pylist()[0]
        for size in (0, 30)
    ]
    assert [row["train_examples"] for row in rows] == [180, 30]
    assert {row["data"] for row in rows} == {data.checksum}
    assert [row["status"] for row in rows] == ["done", "done"]


def test_less_to_train_on_is_less_work():
    assert work(make(train_size=450), DATA) * 4 == work(make(), DATA)


def test_sizes_have_graphs_of_their_own_and_levels_of_noise_share_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for of in (lambda cell: graph(cell, DATA, 8), lambda cell: marker(cell, DATA, 8, "code")):
        assert of(make(train_size=900)) != of(make())  # examples are an input of fixed size
        assert of(make(label_noise=0.5)) == of(make())
        assert of(make(train_size=EXAMPLES)) == of(make())
    assert shape(make(train_size=900, label_noise=0.5), DATA) == shape(make(), DATA)


def test_the_last_part_of_an_evaluation_counts_for_the_bits_of_a_seed():
    cell = make(
        activation="elu", width=32, batch=20
    )  # 32 × 800 is a multiple of 32; a product with a vector is not one
    data = numbered(n=2000)
    assert seeds_in_engine(cell, data, "cpu", 8) is None
    assert seeds_in_engine(make(activation="elu", width=32, batch=20, train_size=1001), data, "cpu", 8) == 1


# What cannot be

MISFITS = [
    ({"train_size": 1801}, "train_size = 1801: larger than the training part of x (1800 examples)"),
    ({"batch": 1801}, "batch = 1801: larger than the training part of x (1800 examples)"),
    ({"batch": 41, "train_size": 40}, "batch = 41: larger than train_size = 40 (40 examples)"),
    ({"shift": 1}, "shift = 1: examples of x have no space to be shifted in"),
    (
        {"flip": True},
        "flip = true: the mirror image of an example of x may be of another class, or of none; "
        "there are cifar10, fashion14, fashion_mnist, and npz files in which `flips` is true",
    ),
]


@pytest.mark.parametrize(("fields", "words"), MISFITS)
def test_a_cell_that_a_data_set_does_not_fit_is_told_why(fields, words):
    assert misfit(make(**fields), DATA) == words
    with pytest.raises(DataError) as told:
        train(make(**fields), (0,), DATA)
    assert str(told.value) == words


@pytest.mark.parametrize(
    "fields", [{}, {"train_size": EXAMPLES}, {"batch": 40, "train_size": 40}, {"label_noise": 0.99}]
)
def test_a_cell_that_just_fits_is_fine(fields):
    assert misfit(make(**fields), DATA) is None


def test_labels_of_a_single_class_cannot_be_wrong(blobs):
    assert misfit(make(label_noise=0.1), blobs(classes=1)) == "label_noise = 0.1: x has a single class"


def test_a_shift_stays_within_the_smallest_dimension_of_space(blobs):
    data = blobs((1, 8, 5))
    assert misfit(make(shift=4), data) is None
    assert misfit(make(shift=5), data) == "shift = 5: must be less than 5, the smallest dimension of x"
