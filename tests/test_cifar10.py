"""CIFAR-10 from files of its format, with fewer rows: their layout, what is checked, and the archive they come in."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from harness.datasets import DataError, cifar10, load

FILES = (*cifar10.TRAIN, cifar10.TEST)


def table():
    """Rows of a file: byte 0 the class, then 3,072 bytes of pixels."""
    rng = np.random.default_rng(cifar10.ROWS)
    rows = rng.integers(256, size=(cifar10.ROWS, 3073), dtype=np.uint8)
    rows[:, 0] = np.arange(cifar10.ROWS) % 10
    return rows


def contents():
    """Of each file, whose number its first pixels tell."""
    rows = table()
    for i, name in enumerate(FILES):
        rows[:, 1] = i
        yield name, rows.tobytes()


def write_cifar10(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents():
        (folder / name).write_bytes(content)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty $NORMORDER_DATA, and files of 20 rows."""
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path))
    monkeypatch.setattr(cifar10, "ROWS", 20)
    return tmp_path


@pytest.fixture
def folder(home):
    write_cifar10(home / cifar10.FOLDER)
    return home / cifar10.FOLDER


@pytest.fixture
def archive(home, monkeypatch):
    """Makes an archive of these contents by name, and takes its checksum for the published one."""

    def make(contents, **links):
        path = home / "cifar-10-binary.tar.gz"
        with tarfile.open(path, "w:gz") as packed:
            for name, content in contents.items():
                about = tarfile.TarInfo(name)
                about.size = len(content)
                packed.addfile(about, io.BytesIO(content))
            for name, target in links.items():
                about = tarfile.TarInfo(f"{cifar10.FOLDER}/{name}.bin")
                about.type, about.linkname = tarfile.SYMTYPE, target
                packed.addfile(about)
        monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
        return path

    return make


def packable():
    return {f"{cifar10.FOLDER}/{name}": content for name, content in contents()}


def test_pixels_are_planes_of_red_green_and_blue_in_rows(folder):
    examples, rows = cifar10.load(), table()
    assert (examples.x_train.shape, examples.x_test.shape) == ((100, 3, 32, 32), (20, 3, 32, 32))
    assert examples.y_train.tolist() == list(range(10)) * 10
    for n, channel, row, column in [(0, 1, 0, 0), (7, 0, 31, 31), (19, 2, 3, 17), (4, 1, 30, 2)]:
        expected = rows[n, 1 + 1024 * channel + 32 * row + column]
        assert examples.x_test[n, channel, row, column] == examples.x_train[20 + n, channel, row, column] == expected


def test_training_examples_are_the_five_batches_in_turn(folder):
    examples = cifar10.load()
    assert examples.x_train[:, 0, 0, 0].tolist() == [i for i in range(5) for _ in range(20)]
    assert set(examples.x_test[:, 0, 0, 0].tolist()) == {5}


def test_a_whole_study_can_be_planned_on_it(folder):
    data = load("cifar10")
    assert (len(data.x_train), len(data.x_val), len(data.x_test)) == (90, 10, 20)
    assert (data.shape, data.classes, data.flips) == ((3, 32, 32), 10, True)


# Errors


def change(folder, at, value, name="data_batch_3.bin"):
    content = bytearray((folder / name).read_bytes())
    content[at] = value
    (folder / name).write_bytes(content)


DAMAGE = {
    "a byte less": (lambda f: (f / "test_batch.bin").write_bytes(bytes(61_459)), r"test_batch.bin: 61,459 bytes where"),
    "a byte more": (lambda f: (f / "test_batch.bin").write_bytes(bytes(61_461)), r"where a file of CIFAR-10 has 61,460"),
    "empty": (lambda f: (f / "data_batch_1.bin").write_bytes(b""), r"data_batch_1.bin: 0 bytes"),
    "missing": (lambda f: (f / "data_batch_5.bin").unlink(), r"data_batch_5.bin: cannot be read: No such file"),
    "class 10": (lambda f: change(f, 3073 * 4, 10), r"data_batch_3.bin: class 10 in row 4; classes are 0 to 9"),
    "classes of the training files": (lambda f: change(f, 0, 1), r"cifar-10-batches-bin: not CIFAR-10, which has equally"),
    "classes of the test file": (lambda f: change(f, 0, 1, "test_batch.bin"), r"not CIFAR-10, which has equally many"),
    "a file in place of the folder": (lambda f: f.rename(f.with_name("x")) and f.touch(), r"cannot be read: Not a direc"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_are_not_those_of_cifar10_are_named(folder, damage):
    do, words = DAMAGE[damage]
    do(folder)
    with pytest.raises(DataError, match=words) as told:
        cifar10.load()
    assert "\n" not in str(told.value)


# The archive


def test_an_archive_is_unpacked_once_into_its_six_files(archive, home):
    more = {"cifar-10-batches-bin/readme.html": b"x", "../evil": b"x", "cifar-10-batches-bin/batches.meta.txt": b"x"}
    path = archive(packable() | more)
    assert set(load("cifar10").y_test.tolist()) == set(range(10))
    path.unlink()
    assert load("cifar10").classes == 10  # from the folder
    assert sorted(each.name for each in home.rglob("*")) == sorted([cifar10.FOLDER, *FILES])
    assert not home.with_name("evil").exists()


def test_an_archive_with_another_checksum_is_not_opened(archive, home):
    path = archive(packable())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: wrong checksum, so not the archive of CIFAR-10"):
        cifar10.load()
    assert list(home.iterdir()) == [path]


@pytest.mark.parametrize("what", ["a missing file", "a link to elsewhere", "a folder for a file", "no archive"])
def test_an_archive_that_lacks_a_file_leaves_no_folder(archive, home, monkeypatch, what):
    fewer = {name: content for name, content in packable().items() if "batch_2" not in name}
    path = archive(fewer, **({"data_batch_2": "/etc/passwd"} if what == "a link to elsewhere" else {}))
    if what == "a folder for a file":
        with tarfile.open(path, "w:gz") as packed:
            about = tarfile.TarInfo(f"{cifar10.FOLDER}/data_batch_1.bin")
            about.type = tarfile.DIRTYPE
            packed.addfile(about)
    if what == "no archive":
        path.write_bytes(b"words")
    monkeypatch.setattr(cifar10, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz: cannot be unpacked into .*cifar-10-batches-bin: "):
        cifar10.load()
    assert list(home.iterdir()) == [path]


def test_an_archive_that_is_nowhere_is_named_with_what_to_do(home, monkeypatch):
    monkeypatch.setattr(cifar10, "SOURCE", "http://127.0.0.1:9/cifar-10-binary.tar.gz")  # the port named discard
    with pytest.raises(
        DataError, match=r"cifar-10-binary.tar.gz: not in .*, and its download failed .*; put it, or its"
    ):
        cifar10.load()
