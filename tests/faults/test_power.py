"""Power that fails: what a sweep has finished is on the disk, not only in the memory of the system."""

import shutil
import signal
import subprocess
import time

import psutil
import pytest
from processes import children, end, need, sweeping, told, wait_until, write_grid

from results import Store
from results.validation import validate

SETTLED_S = 1.0  # after which a run that readers see must be on the disk; without fsync that takes 5 to 30 s


@pytest.fixture
def disk(tmp_path):
    """Mounts an image of a disk in a folder of its own."""
    mounted = []

    def mount(image, name):
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, check=False, text=True)
        if done.returncode:
            pytest.skip(f"a disk of its own needs the right to mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def test_what_was_finished_a_second_before_the_power_fails_is_on_the_disk(tmp_path, disk):
    need("mkfs.ext4", "e2fsprogs")
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64_000_000)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    store = disk(image, "disk") / "store"
    grid = write_grid(tmp_path / "g.toml", epochs=60, seeds=120)
    with sweeping(grid, store) as driver:
        wait_until(lambda: driver.poll() is not None or Store(store).files("runs"))
        finished = Store(store).finished()
        time.sleep(SETTLED_S)
        assert driver.poll() is None, told(grid)
        stopped = [psutil.Process(driver.pid), *children(driver)]
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        shutil.copy(image, tmp_path / "after.img")  # as the disk is at this moment
        end(stopped)
    after = disk(tmp_path / "after.img", "after") / "store"
    assert 0 < len(finished) < 240
    assert set(finished) <= set(Store(after).finished())
    assert not [each for each in validate(Store(after)) if "not a readable" in each]
