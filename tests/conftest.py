"""What every test shares: one thread, as in a trial; no usage statistics sent; a tiny separable problem; object storage."""

import torch

torch.set_num_threads(1)

import itertools  # noqa: E402 the threads come first
import os  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import storage  # noqa: E402

import harness  # noqa: E402
import harness.architectures  # noqa: E402
import normorder  # noqa: E402
from harness import new  # noqa: E402
from harness.datasets import Data, Examples, prepare  # noqa: E402

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Machines are shared, so no example has a time limit; and the same examples are tried each time.
hypothesis.settings.register_profile("normorder", deadline=None, derandomize=True)
hypothesis.settings.load_profile("normorder")


@pytest.fixture(scope="session")
def blobs():
    """Makes data sets of Gaussian blobs, `classes` of them, whose centres are 2 sd from the origin in each number."""

    def make(shape: tuple[int, ...] = (6,), train: int = 100, test: int = 60, classes: int = 3) -> Data:
        rng = np.random.default_rng(0)
        centres = 2 * rng.choice([-1.0, 1.0], (classes, *shape))
        y = np.arange(train + test) % classes
        x = centres[y] + rng.standard_normal((train + test, *shape))
        return prepare("x", Examples(x[:train], y[:train], x[train:], y[train:], classes))

    return make


@pytest.fixture(scope="session")
def endpoint():
    """The address of a server that speaks S3."""
    with storage.serving() as endpoint:
        yield endpoint


numbers = itertools.count()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """The address of an empty bucket, which this process and those that it starts reach."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in storage.environment(endpoint).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{next(numbers)}"
    storage.client(endpoint).create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def told(monkeypatch, capsys):
    """Exit code, output and errors of a command."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["normorder", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            normorder.main()
        return stopped.value.code, *capsys.readouterr()

    return run


@pytest.fixture
def architectures(tmp_path, monkeypatch):
    """A folder of architectures in the place of ours, with copies of them, to which others may be added."""
    folder = tmp_path / "harness"
    for name in ("architectures", "datasets"):
        shutil.copytree(harness.HERE / name, folder / name)
    for module in (harness, new):
        monkeypatch.setattr(module, "HERE", folder)
    monkeypatch.setattr("harness.architectures.__path__", [str(folder / "architectures")])
    return folder / "architectures"
