"""Trials that raise, hang, crash in native code or need too much memory: their runs have a fate, and the others go on."""

from processes import children, program, sweeping, swept, told, trains, wait_until, write_grid

from results import Store

SOUND, HANGS, CRASHES, RAISES = 1, 2, 3, 4  # by depth
FAULTS = f"""import ctypes
if cell.depth == {RAISES}: raise ArithmeticError("on purpose")
if cell.depth == {CRASHES}: ctypes.string_at(0)
while cell.depth == {HANGS}: time.sleep(1)"""
# What a worker may have beside what it has: enough for the network of some seeds, or of none.
MEMORY = """import resource
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + {more_bytes}, resource.RLIM_INFINITY))"""


def rows(store):
    return Store(store).read("runs").to_pandas()


def test_trials_that_hang_crash_or_raise_are_failed_rows_that_say_why_and_the_others_are_done(tmp_path):
    root = program(tmp_path / "program", FAULTS)
    grid = write_grid(tmp_path / "g.toml", "faulty", depths=(SOUND, HANGS, CRASHES, RAISES), seeds=1)
    code, _ = swept(grid, tmp_path / "store", "--trial-limit", "4", root=root)
    found = rows(tmp_path / "store")
    assert code == 1
    assert found.groupby("depth")["status"].agg(list).to_dict() == {
        SOUND: ["done"] * 2, HANGS: ["failed"] * 2, CRASHES: ["failed"] * 2, RAISES: ["failed"] * 2,
    }  # fmt: skip
    error = found.set_index("depth")["error"]
    assert error[HANGS].str.contains("it ran longer than the limit of 4 s").all()
    assert error[RAISES].str.contains("ArithmeticError: on purpose").all()
    assert not error[CRASHES].str.contains("it ran longer").any()
    code, told = swept(grid, tmp_path / "store", "--trial-limit", "4", root=root)
    assert code == 1
    assert "nothing to do: 6 runs failed before" in told


def test_a_worker_that_is_stopped_from_outside_is_ended_and_its_runs_have_failed(tmp_path):
    grid = write_grid(tmp_path / "g.toml", epochs=40, seeds=20)
    with sweeping(grid, tmp_path / "store", "--trial-limit", "8") as driver:
        wait_until(lambda: driver.poll() is not None or any(map(trains, children(driver))))
        stopped = next(filter(trains, children(driver)))
        stopped.suspend()
        assert driver.wait(timeout=120) == 1, told(grid)
        assert not stopped.is_running()
    found = rows(tmp_path / "store")
    failed = found[found["status"] == "failed"]
    assert (len(found), failed["trial"].nunique(), set(found["status"])) == (40, 1, {"done", "failed"})
    assert found["error"].dropna().str.contains("it ran longer than the limit of 8 s").all()


def test_a_trial_that_needs_too_much_memory_is_tried_again_with_fewer_seeds(tmp_path):
    root = program(tmp_path / "program", MEMORY.format(more_bytes=900_000_000))
    grid = write_grid(tmp_path / "g.toml", "faulty", epochs=1, batch=512, width=1600, seeds=16)
    code, told = swept(grid, tmp_path / "store", root=root)
    found = rows(tmp_path / "store")
    assert code == 0, told
    assert found["status"].tolist() == ["done"] * 32
    assert found.groupby("trial").size().max() < 16


def test_a_trial_that_never_has_enough_memory_is_failed_rows(tmp_path):
    root = program(tmp_path / "program", MEMORY.format(more_bytes=1_000_000))
    grid = write_grid(tmp_path / "g.toml", "faulty", epochs=1, width=1600, seeds=2)
    code, _ = swept(grid, tmp_path / "store", root=root)
    assert code == 1
    assert rows(tmp_path / "store")["status"].tolist() == ["failed"] * 4
