"""A user's own file as a data set: what it may hold, and what each kind of bad file is told."""

import numpy as np
import pytest

from harness.datasets import DataError, load

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    return tmp_path


def good(*shape):
    """Arrays of 40 and 12 examples of four classes."""
    x, y = RNG.standard_normal((52, *(shape or (2, 5)))), np.arange(52) % 4
    return {"x_train": x[:40], "y_train": y[:40], "x_test": x[40:], "y_test": y[40:]}


def saved(home, name="mine", **arrays):
    np.savez(home / f"{name}.npz", **{key: array for key, array in arrays.items() if array is not None})


@pytest.mark.parametrize("shape", [(1,), (7,), (1, 8), (3, 5), (3, 4, 6)], ids=str)
def test_a_file_of_arrays_is_a_data_set(home, shape):
    saved(home, **(arrays := good(*shape)))
    data = load("npz:mine")
    assert (data.name, data.shape, data.classes, data.flips) == ("npz:mine", shape, 4, False)
    assert (len(data.x_train), len(data.x_val)) == (36, 4)
    assert data.y_test.tolist() == arrays["y_test"].tolist()
    axes = (0, *range(2, data.x_train.ndim))
    np.testing.assert_allclose(data.x_train.mean(axes, dtype=float), 0, atol=1e-6)


@pytest.mark.parametrize("x", [np.uint8, np.float16, ">f4", np.int64, bool, np.longdouble])
@pytest.mark.parametrize("y", [np.uint8, ">i2", np.uint64])
def test_numbers_may_be_of_any_type(home, x, y):
    arrays = good()
    saved(home, **{name: np.abs(a * 9).astype(x) if name[0] == "x" else a.astype(y) for name, a in arrays.items()})
    data = load("npz:mine")
    assert (data.x_train.dtype, data.y_train.dtype) == (np.float32, np.int64)
    assert data.y_test.tolist() == arrays["y_test"].tolist()


def test_a_compressed_file_is_read_too_and_other_arrays_are_not(home):
    np.savez_compressed(home / "a.b-c_1.npz", **good(), note=np.array("words"))
    assert load("npz:a.b-c_1").classes == 4


def test_classes_that_do_not_occur_are_counted_where_the_file_says_so(home):
    saved(home, **good(), classes=np.int64(9))
    assert load("npz:mine").classes == 9


def test_examples_may_be_mirrored_where_the_file_says_so(home):
    saved(home, **good(), flips=np.True_)
    assert load("npz:mine").flips is True
    saved(home, **good(), flips=np.False_)
    assert load("npz:mine").flips is False


def test_ten_training_examples_are_enough(home):
    arrays = good()
    saved(home, **arrays | {name: arrays[name][:10] for name in ("x_train", "y_train")})
    assert (len(load("npz:mine").x_train), len(load("npz:mine").x_val)) == (9, 1)


def at(place, value):
    """A change of a single number."""

    def change(array):
        array = array.copy()
        array[place] = value
        return array

    return change


# What is changed, into what, and the words of the error beside the file's name.
BAD = {
    "no examples": ("x_train", lambda a: None, "cannot be read: has no array x_train; it must be an .npz file with x_t"),
    "no labels": ("y_test", lambda a: None, "has no array y_test"),
    "words": ("x_train", lambda a: a.astype(str), "x_train is of type <U.*; it must be numbers"),
    "complex numbers": ("x_test", lambda a: a.astype(complex), "x_test is of type complex128; it must be numbers"),
    "records": ("x_train", lambda a: np.zeros(40, "i4,f4"), "x_train is of type .*; it must be numbers"),
    "pickles": ("x_train", lambda a: a.astype(object), "cannot be read: Object arrays cannot be loaded .* and no pickles"),
    "one number": ("x_train", lambda a: a[0, 0, 0], r"x_train has shape \(\); it must be \(N, C\), \(N, C, L\) or"),
    "one number an example": ("x_train", lambda a: a[:, 0, 0], r"x_train has shape \(40,\); it must be"),
    "three dimensions of space": ("x_test", lambda a: a[:, :, :, None, None], r"x_test has shape \(12, 2, 5, 1, 1\)"),
    "no channels": ("x_train", lambda a: a[:, :0], r"x_train has shape \(40, 0, 5\)"),
    "no training examples": ("x_train", lambda a: a[:0], "x_train has 0 examples; there must be at least 10"),
    "too few to cut": ("x_train", lambda a: a[:9], "x_train has 9 examples; there must be at least 10"),
    "no test examples": ("x_test", lambda a: a[:0], "x_test has 0 examples; there must be at least 1"),
    "NaN": ("x_train", at((7, 1, 3), np.nan), r"x_train must have finite numbers, up to 1e\+30"),
    "infinite": ("x_test", at((7, 1, 3), -np.inf), "x_test must have finite numbers"),
    "too large": ("x_train", at((7, 1, 3), 1e200), "x_train must have finite numbers"),
    "labels with fractions": ("y_train", lambda a: a + 0.5, "y_train is of type float64; it must be whole numbers, 0 to"),
    "labels of words": ("y_test", lambda a: a.astype(str), "y_test is of type <U"),
    "labels true or false": ("y_train", lambda a: a > 1, "y_train is of type bool"),
    "labels one hot": ("y_train", lambda a: np.eye(4, dtype=int)[a], r"y_train has shape \(40, 4\) where x_train has 40"),
    "a label too few": ("y_train", lambda a: a[1:], r"y_train has shape \(39,\) where x_train has 40 examples"),
    "a negative label": ("y_test", at(3, -1), "y_test has the class -1; classes are 0 to classes - 1"),
    "labels from 1": ("y_train", lambda a: a + 1, "y_train has the class 4; there are 0 to 3, as many as occur in y_t"),
    "a label that no training example has": ("y_test", at(3, 4), "y_test has the class 4; there are 0 to 3"),
    "a huge label": ("y_train", at(3, 10**12), "y_train has the class 1000000000000; there are 0 to 4"),
    "one class": ("y_train", lambda a: a * 0, "1 classes; there must be 2 to 1,000,000"),
    "too few classes": ("classes", lambda a: np.int64(3), "y_train has the class 3; there are 0 to 2, as `classes` says"),
    "classes with a fraction": ("classes", lambda a: np.float64(4), "classes must be a whole number"),
    "classes by name": ("classes", lambda a: np.array(["a", "b", "c", "d"]), "classes must be a whole number"),
    "no class": ("classes", lambda a: np.int64(0), "0 classes; there must be 2 to 1,000,000"),
    "too many classes": ("classes", lambda a: np.int64(10**7), "10000000 classes; there must be 2 to 1,000,000"),
    "flips by number": ("flips", lambda a: np.int64(1), "flips must be true or false"),
    "other shapes": ("x_test", lambda a: a[:, :, :4], r"x_train and x_test have the shapes \(2, 5\) and \(2, 4\); they"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_no_training_could_use_is_told_in_a_line(home, what):
    name, change, words = BAD[what]
    arrays = good()
    saved(home, **arrays | {name: change(arrays.get(name))})
    with pytest.raises(DataError, match=words) as told:
        load("npz:mine")
    assert str(told.value).startswith(f"{home}/mine.npz: ")
    assert "\n" not in str(told.value)


def test_numbers_that_standardising_makes_too_large_are_told(home):
    arrays = good()
    saved(home, **arrays | {"x_train": arrays["x_train"] * 1e-30, "x_test": arrays["x_test"] * 1e29})
    with pytest.raises(DataError, match="data set npz:mine: a number is not finite, or too far from those"):
        load("npz:mine")


def test_examples_without_space_have_no_mirror_image(home):
    saved(home, **good(5), flips=np.True_)
    with pytest.raises(DataError, match=r"flips is true, but examples \(C,\) without space have no mirror image"):
        load("npz:mine")


CONTENT = {
    "missing": (None, "cannot be read: No such file or directory; it must be an .npz file with x_train, y_train"),
    "empty": (b"", "cannot be read: not an .npz file"),
    "words": (b"x,y\n1,2\n", "cannot be read: not an .npz file"),
    "a single array": (b"\x93NUMPY\x01\x00", "cannot be read: not an .npz file"),
    "an empty archive": (b"PK\x05\x06" + bytes(18), "cannot be read: has no array x_train, y_train, x_test, y_test"),
}


@pytest.mark.parametrize("what", CONTENT)
def test_a_file_of_another_kind_is_told_in_a_line(home, what):
    content, words = CONTENT[what]
    if content is not None:
        (home / "mine.npz").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load("npz:mine")


def test_a_folder_is_no_file(home):
    (home / "mine.npz").mkdir()
    with pytest.raises(DataError, match=r"mine.npz: cannot be read: Is a directory"):
        load("npz:mine")


@pytest.mark.parametrize(
    "name", ["../mine", "/mine", "a/b", ".mine", "", " ", "a b", "ä", "x" * 101, "a\n", "a\0", "..", "a:b"]
)
def test_a_name_leads_nowhere_but_to_a_file_in_the_folder(home, name):
    saved(home, **good())
    with pytest.raises(DataError, match="npz takes the name of a file in the folder of data"):
        load(f"npz:{name}")


@pytest.mark.parametrize("place", range(0, 3000, 61))
def test_a_byte_that_was_changed_is_told_or_leaves_a_data_set(home, place):
    saved(home, **good())
    content = bytearray((home / "mine.npz").read_bytes())
    content[place % len(content)] ^= 255
    (home / "mine.npz").write_bytes(content)
    told = None
    try:
        assert np.isfinite(load("npz:mine").x_train).all()  # of what lies between members nothing depends
    except DataError as error:
        told = str(error)
    assert told is None or (told.startswith(f"{home}/mine.npz: ") and told.isprintable())
