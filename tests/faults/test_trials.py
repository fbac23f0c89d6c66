"""Trials that hang, crash in native code or need too much memory: their runs have a fate, and the others go on."""

from processes import program, swept, write_grid

from results import Store

HANG = "while True: time.sleep(1)"
CRASH = "import ctypes\nctypes.string_at(0)"
# What a worker may have beside what it has: enough for the network of few seeds, too little for that of many.
LITTLE_MEMORY = """import resource
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 900_000_000, resource.RLIM_INFINITY))"""


def rows(store):
    return Store(store).read("runs").to_pandas()


def test_a_trial_that_hangs_is_ended_and_its_rows_say_so(tmp_path):
    root = program(tmp_path / "program", HANG)
    grid = write_grid(tmp_path / "g.toml", "faulty", seeds=1)
    code, _ = swept(grid, tmp_path / "store", "--trial-limit", "3", root=root)
    found = rows(tmp_path / "store")
    assert code == 1
    assert found["status"].tolist() == ["failed"] * 2
    assert found["error"].str.contains("it ran longer than the limit of 3 s").all()


def test_a_segmentation_fault_makes_failed_rows_and_a_later_sweep_does_not_repeat_it(tmp_path):
    root = program(tmp_path / "program", CRASH)
    grid = write_grid(tmp_path / "g.toml", "faulty", seeds=2)
    code, _ = swept(grid, tmp_path / "store", root=root)
    assert code == 1
    assert rows(tmp_path / "store")["status"].tolist() == ["failed"] * 4
    code, told = swept(grid, tmp_path / "store", root=root)
    assert code == 1
    assert "nothing to do: 4 runs failed before" in told


def test_a_trial_that_needs_too_much_memory_is_tried_again_with_fewer_seeds(tmp_path):
    root = program(tmp_path / "program", LITTLE_MEMORY)
    grid = write_grid(tmp_path / "g.toml", "faulty", epochs=1, width=1600, seeds=16)
    code, told = swept(grid, tmp_path / "store", root=root)
    found = rows(tmp_path / "store")
    assert code == 0, told
    assert found["status"].tolist() == ["done"] * 32
    assert found.groupby("trial").size().max() < 16


def test_a_trial_that_never_has_enough_memory_is_failed_rows(tmp_path):
    root = program(tmp_path / "program", LITTLE_MEMORY.replace("900_000_000", "1_000_000"))
    grid = write_grid(tmp_path / "g.toml", "faulty", epochs=1, width=1600, seeds=2)
    code, _ = swept(grid, tmp_path / "store", root=root)
    found = rows(tmp_path / "store")
    assert code == 1
    assert found["status"].tolist() == ["failed"] * 4
