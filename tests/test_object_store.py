"""A store on object storage says and does what one in a folder does; what fails is told in a line without a secret."""

import inspect
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.request import Request, urlopen

import pyarrow.parquet as pq
import pytest
import storage
from simulated import fill, planted, read_grid
from test_store import START, curves, examples, run_ids, runs
from test_upkeep import fill as fill_with
from test_upkeep import several

import normorder
from reports import page
from results import SCHEMAS, Store, StoreError, disk, objects
from results.errors import OutOfReach, Vanished
from results.files import batches, identify, read_file
from results.merging import merge
from results.schema import columns_of
from results.upkeep import _remove, compact, needs_compaction
from results.validation import _unreadable, set_aside, validate

ROOT = Path(normorder.__file__).parent
HISTORY = [
    {"seeds": seeds, "trial": trial, "status": status, "code": code, "engine": engine, "loss": loss, "hour": hour}
    | {"killed": killed}
    for seeds, trial, status, code, engine, loss, hour, killed in [
        ([0, 1], "aa", "done", "old", "cpu", 0.5, 0, False),
        ([0, 1], "aa", "done", "old", "cpu", 0.25, 0, False),
        ([1, 2], "bb", "done", "new", "gpu", 0.5, 1, False),
        ([2, 3], "cc", "failed", "new", "cpu", 0.5, 2, False),
        ([3], "bb", "diverged", "new", "cpu", 0.5, 1, False),
        ([0], "cc", "done", "new", "cpu", 0.5, 2, True),
    ]
]


def said(path):
    """All that a store says."""
    store = Store(path)
    frames = [repr(frame.to_dict("records")) for frame in (store.conflicts(), store.replicates())]
    return store.finished(), store.failed(), frames, [store.read(name).to_pylist() for name in SCHEMAS]


def command(*words, **changes):
    """What a command of its own process answers."""
    line = [sys.executable, "-m", "normorder", *map(str, words)]
    given = {**os.environ, "PYTHONPATH": str(ROOT), **changes}
    return subprocess.run(line, env=given, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def way(endpoint, bucket, monkeypatch):
    """A way to the storage that a test can disturb."""
    way = storage.Way(endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.endpoint)
    yield way
    way.close()


def names(endpoint, store):
    return sorted(key for key in storage.objects(endpoint, store) if key.endswith(".parquet"))


def test_folders_and_object_storage_are_asked_in_the_same_way():
    def asked(module):
        functions = inspect.getmembers(module, inspect.isfunction)
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in functions
            if function.__module__ == module.__name__ and not name.startswith("_")
        }

    of_disk = asked(disk)
    assert of_disk.pop("is_abandoned") == ["temporary"]
    assert asked(objects) == of_disk
    assert disk.READERS <= objects.READERS


@pytest.mark.parametrize("prefix", ["", "/study", "/a b/ä+%20=c/d"])
def test_a_store_says_the_same_on_object_storage_as_in_a_folder(tmp_path, bucket, endpoint, prefix):
    place = bucket + prefix
    assert said(place) == said(tmp_path / "nothing")
    for each in (place, tmp_path):
        fill_with(each, HISTORY)
    assert said(place) == said(tmp_path)
    assert names(endpoint, place) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet"))


def test_a_repeated_trial_is_one_object_and_other_content_never_overwrites(bucket, endpoint):
    store = Store(bucket)
    store.write({"runs": runs(0), "curves": curves(0)})
    store.write({"runs": runs(0, host="there", wall_s=9.0), "curves": curves(0)})
    assert len(names(endpoint, bucket)) == 2
    before = storage.objects(endpoint, bucket)
    store.write({"runs": runs(0, test_loss=0.4), "curves": curves(0, loss=0.4)})
    after = storage.objects(endpoint, bucket)
    assert len(after) == 4
    assert {key: after[key] for key in before} == before


def test_more_objects_than_an_answer_lists_are_all_seen(bucket):
    store = Store(bucket)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(objects.touch, (store.path / "runs" / f"{i:016x}-0.parquet" for i in range(1001))))
    assert len(store.files("runs")) == 1001
    assert needs_compaction(store)


def test_a_large_object_is_read_by_columns_and_put_in_parts(bucket, monkeypatch):
    monkeypatch.setattr(objects, "WHOLE", 1000)
    noise = random.Random(0).randbytes(11_000_000).hex()
    store = Store(bucket)
    store.write({"runs": runs(0, 1, error=[noise, None])})
    assert store.files("runs")[0].size > 10_000_000
    assert list(store.finished()) == run_ids(0, 1)
    assert store.read("runs")["error"].to_pylist().count(noise) == 1


def fail_after(act, *what):
    act(*what)
    raise OSError("what a reading of two halves leads to")


def test_an_object_that_is_written_again_while_it_is_read_is_read_again(bucket, monkeypatch):
    store = Store(bucket)
    store.write({"runs": runs(0)})
    [path] = store.files("runs")
    for whole in (0, objects.WHOLE):
        monkeypatch.setattr(objects, "WHOLE", whole)
        with objects.opened(path) as file:
            assert file.metadata.num_rows == 1
        with pytest.raises(Vanished, match="was written again"), objects.opened(path):
            fail_after(store.write, {"runs": runs(0, host=f"elsewhere {whole}")})
    monkeypatch.setattr(objects, "WHOLE", 0)
    with pytest.raises(Vanished, match="was written again"), objects.opened(path):
        store.write({"runs": runs(0, host="at last")})


# What may happen to a write


def large(seed):
    return runs(seed, error=random.Random(seed).randbytes(8_000_000).hex())


def test_a_connection_that_is_cut_in_the_middle_of_a_write_leaves_no_object_and_is_told(bucket, endpoint, way):
    way.cut = 1_000_000
    with pytest.raises(OutOfReach, match=r"s3://.*\.parquet: cannot be written: .* cannot be reached: "):
        Store(bucket).write({"runs": large(0)})
    assert way.carried > 500_000
    assert storage.objects(endpoint, bucket) == {}
    way.cut = float("inf")
    Store(bucket).write({"runs": large(0)})
    assert len(Store(bucket).finished()) == 1


def test_a_write_in_parts_of_which_one_fails_leaves_no_object(bucket, endpoint, way):
    way.cut = 10_200_000  # a part has 10 MiB, so each is cut short of its end
    content = random.Random(0).randbytes(25_000_000)
    with pytest.raises(OutOfReach, match="cannot be written"):
        objects._put(Store(bucket).path / "runs" / "a.parquet", content)
    assert way.carried > 5_000_000
    assert storage.objects(endpoint, bucket) == {}


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_object_store import *
print("ready", flush=True)
Store({store!r}).write({{"runs": large(0)}})
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_writer_that_is_ended_in_the_middle_of_a_write_leaves_the_whole_or_nothing(bucket, endpoint, way, number):
    way.held = 1_000_000
    code = WRITER.format(tests=str(ROOT / "tests"), store=bucket)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL) as writer:
        end_s = time.monotonic() + 60
        while way.carried < way.held:
            assert time.monotonic() < end_s
            time.sleep(0.01)
        writer.send_signal(number)
        time.sleep(0.2)
        way.held = float("inf")
        assert writer.wait(timeout=60) != 0
    assert len(names(endpoint, bucket)) == (number == signal.SIGINT)  # an interrupt waits for a write that has begun
    assert len(Store(bucket).finished()) == (number == signal.SIGINT)


def test_an_exception_before_the_write_leaves_no_object(bucket, endpoint):
    with pytest.raises(TypeError):
        objects._put(Store(bucket).path / "runs" / "a.parquet", ["no bytes"])
    assert storage.objects(endpoint, bucket) == {}


# Compaction


def test_a_compacted_store_has_an_object_a_table_and_says_the_same(bucket, endpoint):
    fill_with(bucket, HISTORY)
    before = said(bucket)
    assert str(compact(Store(bucket))) == "merged 18 files into 4"
    assert len(names(endpoint, bucket)) == 4
    assert said(bucket) == before
    assert str(compact(Store(bucket))) == "no files to merge"


def test_an_object_that_was_written_again_meanwhile_is_not_removed(bucket):
    store = Store(bucket)
    store.write({"runs": runs(0)})
    [path] = store.files("runs")
    seen = identify(path)
    store.write({"runs": runs(0, started_at=START + timedelta(hours=1))})  # of the same size, in the same second
    _remove(path, seen)
    assert objects.exists(path)
    _remove(path, identify(path))
    assert not objects.exists(path)
    _remove(path, seen)


def test_who_reads_and_compacts_beside_a_writer_misses_nothing(bucket):
    def write():
        for i in range(30):
            trial = f"{i:02x}"
            Store(bucket).write({"runs": runs(i, trial=trial), "curves": curves(i, trial=trial)})
            if i % 7 == 6:
                compact(Store(bucket))

    writer = threading.Thread(target=write)
    writer.start()
    store, seen, times = Store(bucket), set(), 0
    while writer.is_alive():
        now = set(store.finished())
        assert seen <= now, "a run that was there is not there any more"
        seen, times = now, times + 1
        assert len(store.read("curves")) >= len(seen)
        if times % 3 == 0:
            compact(store)
    writer.join()
    assert set(store.finished()) == set(run_ids(*range(30)))
    assert len(store.read("curves")) == 30
    assert times > 3


def test_an_object_that_cannot_be_read_is_named_and_nothing_is_merged(bucket, endpoint):
    store = several(Store(bucket), 3)
    path = store.files("curves")[1]
    objects._put(path, objects.read(path)[:-9])
    before = storage.objects(endpoint, bucket)
    with pytest.raises(StoreError, match=f"{path}: not a readable Parquet file"):
        compact(store)
    assert storage.objects(endpoint, bucket) == before


# Merging


def test_stores_are_merged_from_folders_and_from_object_storage_in_any_mix(tmp_path, bucket, endpoint):
    fill_with(tmp_path / "a", HISTORY[:3])
    fill_with(f"{bucket}/b", HISTORY[3:])
    fill_with(tmp_path / "whole", HISTORY)
    sources = [Store(tmp_path / "a"), Store(f"{bucket}/b")]
    for into in (tmp_path / "into", f"{bucket}/into"):
        assert merge(sources, Store(into)).there == 0
        assert said(into) == said(tmp_path / "whole")
        assert merge(sources, Store(into)).copied == 0
    assert merge([Store(f"{bucket}/into")], Store(f"{bucket}/copy")).there == 0
    assert names(endpoint, f"{bucket}/copy") == names(endpoint, f"{bucket}/into")
    compact(Store(f"{bucket}/copy"))
    assert merge(sources, Store(f"{bucket}/b")).there == 0  # into one of them
    assert said(f"{bucket}/b") == said(f"{bucket}/copy") == said(tmp_path / "whole")
    assert str(merge([Store(f"{bucket}/into")], Store(f"{bucket}/copy"))) == "copied 0 files, 18 were there already"


def test_what_the_target_has_lost_is_copied_again(tmp_path, bucket):
    source, target = several(Store(tmp_path)), Store(bucket)
    merge([source], target)
    objects.remove(target.files("runs")[0])
    assert merge([source], target).copied == 1
    assert said(bucket) == said(tmp_path)


def test_conflicts_are_told_with_both_values_and_all_rows_kept(tmp_path, bucket, told):
    for place, loss in ((tmp_path / "a", 0.25), (f"{bucket}/b", 0.75)):
        Store(place).write({"runs": runs(0, test_loss=loss), "curves": curves(0), "examples": examples(0)})
    code, out, _ = told("merge", tmp_path / "a", f"{bucket}/b", f"{bucket}/into")
    assert code == 1
    assert "test_loss 0.25" in out
    assert "test_loss 0.75" in out
    assert len(Store(f"{bucket}/into").files("runs")) == 2


def test_objects_of_one_name_that_differ_in_times_only_are_both_kept(bucket):
    for name in ("a", "b"):
        Store(f"{bucket}/{name}").write({"runs": runs(0, host=name)})
    into = Store(f"{bucket}/into")
    merge([Store(f"{bucket}/a"), Store(f"{bucket}/b")], into)
    assert len(into.files("runs")) == 2
    assert into.conflicts().empty


# Commands on a store of a simulated study


@pytest.fixture
def study(tmp_path, bucket):
    """A store of two arms of relu, the same in a folder of the same name, and its grid."""
    grid = read_grid(tmp_path, seeds=4)
    rows = planted(grid, {"relu": [0.0, 0.1, 0.1, 0.2]})
    return fill(Store(f"{bucket}/study"), rows), fill(Store(tmp_path / "study"), rows), grid


def test_a_report_is_that_of_a_copy_in_a_folder(tmp_path, study):
    there, here, grid = study
    for name, store in (("there", there), ("here", here)):
        page.build(grid, store, tmp_path / name)
    written = sorted(path.relative_to(tmp_path / "here") for path in (tmp_path / "here").rglob("*") if path.is_file())
    assert len(written) > 5
    for path in written:
        assert (tmp_path / "there" / path).read_bytes() == (tmp_path / "here" / path).read_bytes(), path


@pytest.mark.parametrize("damage", ["empty", "half", "text"])
def test_a_damaged_object_is_named_and_repair_moves_it_aside(study, endpoint, told, tmp_path, damage):
    store, grid = study[0], tmp_path / "simulated.toml"
    path = store.files("runs")[0]
    content = objects.read(path)
    objects._put(path, {"empty": b"", "half": content[: len(content) // 2], "text": b"run_id,trial"}[damage])
    for words in (("plan", grid, "--store", store.path), ("status", store.path, grid), ("compact", store.path)):
        code, _, errors = told(*words)
        assert (code, errors.count("\n")) == (2, 1)
        assert f"{path}: not a readable Parquet file" in errors
    code, out, _ = told("validate", store.path)
    assert code == 1
    assert f"{path}: not a readable Parquet file" in out
    code, out, _ = told("validate", "--repair", store.path)
    assert f"moved to {store.path}/set-aside/runs/{path.name}." in out
    assert path not in store.files("runs")
    [kept] = [key for key in storage.objects(endpoint, str(store.path)) if key.startswith("set-aside/")]
    assert kept.startswith(f"set-aside/runs/{path.name}.")
    assert told("plan", grid, "--store", store.path)[0] == 0


def test_what_cannot_be_asked_is_not_moved_aside(study, endpoint, way, monkeypatch):
    monkeypatch.setattr(objects, "ATTEMPTS", 1)
    store = study[0]
    before = storage.objects(endpoint, str(store.path))
    files = store.files("runs")
    way.cut = 0
    for ask in (set_aside, validate, compact):
        with pytest.raises(OutOfReach, match="cannot be"):
            ask(store)
    told = []
    for ask in (
        lambda: read_file(files[0], columns_of("runs")),
        lambda: _unreadable(files[0], "runs"),
        lambda: list(batches(files, "runs", unreadable=told.append)),
    ):
        with pytest.raises(OutOfReach, match=f"{files[0]}: cannot be read"):
            ask()
    assert told == []
    assert storage.objects(endpoint, str(store.path)) == before


def test_a_store_has_one_mark_and_is_known_by_it(bucket):
    store = Store(f"{bucket}/a")
    mark = store.mark()
    assert store.mark() == mark
    store.check_mark(mark)
    with pytest.raises(StoreError, match=r"s3://.*/b: is not the store that the sweep began with"):
        Store(f"{bucket}/b").check_mark(mark)


# What is wrong


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("s3://", "s3://: a bucket is missing: s3://bucket/prefix"),
        ("s3:///prefix", "s3://: a bucket is missing: s3://bucket/prefix"),
        ("s3://bucket/../other", "s3://bucket/../other: a prefix has no empty part and none of '.' and '..'"),
        ("s3://bucket/a//b", "s3://bucket/a//b: a prefix has no empty part and none of '.' and '..'"),
        ("s3://KEY:hidden@bucket/prefix", "s3://…: a store is s3://bucket/prefix, without credentials or options"),
        ("s3://KEY:hid/den@bucket/prefix", "s3://…: a store is s3://bucket/prefix, without credentials or options"),
        ("s3://bucket/a?secret_key=hidden", "s3://…: a store is s3://bucket/prefix, without credentials or options"),
        ("s3://KEY:hidden", "s3://…: a bucket is named by letters, digits, dots, dashes and underscores"),
        ("gs://KEY:hidden@bucket/prefix", "gs://: a store is a folder or s3://bucket/prefix"),
        ("ftp://host/hidden", "ftp://: a store is a folder or s3://bucket/prefix"),
        ("s3:/bucket/hidden", "s3:/ with one slash: a store is a folder or s3://bucket/prefix"),
        ("s3://no-bucket-of-this-name/prefix", "there is no bucket no-bucket-of-this-name"),
    ],
)
@pytest.mark.parametrize("use", ["plan", "sweep", "report", "validate", "compact", "merge", "merge into"])
def test_what_is_no_store_is_told_in_a_line(bucket, told, tmp_path, store, message, use):
    read_grid(tmp_path, seeds=2)
    fill_with(tmp_path / "a", HISTORY[:1])
    words = {
        "validate": ("validate", store),
        "compact": ("compact", store),
        "merge": ("merge", store, tmp_path / "into"),
        "merge into": ("merge", tmp_path / "a", store),
    }.get(use, (use, tmp_path / "simulated.toml", "--store", store))
    code, out, errors = told(*words)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("normorder: ")
    assert message in errors
    assert "hid" not in errors


def test_a_path_of_a_store_that_is_not_there_is_told(bucket, told):
    code, _, errors = told("validate", f"{bucket}/nowhere")
    assert (code, errors) == (2, f"normorder: {bucket}/nowhere: there is no store\n")


def test_storage_that_cannot_be_reached_is_told_soon(bucket, told, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    start_s = time.monotonic()
    code, _, errors = told("validate", bucket)
    assert (code, errors.count("\n")) == (2, 1)
    assert "127.0.0.1:1 cannot be reached: Could not connect to server" in errors
    assert time.monotonic() - start_s < 30


def test_storage_that_never_answers_is_told_after_a_bounded_time(bucket, told, way, monkeypatch):
    monkeypatch.setattr(objects, "SILENCE_S", 1.0)
    way.held = 0
    start_s = time.monotonic()
    code, _, errors = told("validate", bucket)
    assert (code, errors.count("\n")) == (2, 1)
    assert "cannot be reached: Timeout was reached" in errors
    assert time.monotonic() - start_s < 30
    objects._connected.cache_clear()


@pytest.mark.parametrize(
    "endpoint_url", ["127.0.0.1:9000", "ftp://host", "http://", "http://u:hidden@host", "http://h/p"]
)
def test_an_endpoint_that_is_none_is_told_and_not_repeated(bucket, told, monkeypatch, endpoint_url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint_url)
    code, _, errors = told("validate", bucket)
    line = "normorder: AWS_ENDPOINT_URL: must be http://host:port or https://host:port, and nothing more\n"
    assert (code, errors) == (2, line)


def test_the_endpoint_for_s3_alone_goes_first(bucket, told, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", os.environ["AWS_ENDPOINT_URL"] + "/")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    Store(bucket).write({"runs": runs(0)})
    assert list(Store(bucket).finished()) == run_ids(0)


# Credentials


@pytest.fixture(scope="module")
def guarded():
    """A server that lets nobody in: there are no users."""
    with storage.serving() as endpoint:
        storage.client(endpoint).create_bucket(Bucket="guarded")
        plain = {"Content-Type": "text/plain"}
        urlopen(Request(f"{endpoint}/moto-api/reset-auth", data=b"0", headers=plain)).close()
        yield endpoint


@pytest.mark.parametrize("words", [("plan",), ("validate",), ("compact",), ("merge", "a"), ("sweep",)])
def test_wrong_credentials_are_told_in_a_line(tmp_path, bucket, guarded, told, monkeypatch, words):
    fill_with(tmp_path / "a", HISTORY[:1])
    monkeypatch.setenv("AWS_ENDPOINT_URL", guarded)
    grid = ROOT / "grids" / "smoke.toml"
    name, *sources = words
    place = (grid, "--store", "s3://guarded/study") if name in ("plan", "sweep") else ("s3://guarded/study",)
    code, _, errors = told(name, *(tmp_path / source for source in sources), *place)
    assert (code, errors.count("\n")) == (2, 1)
    told_of = f"access denied by {guarded.removeprefix('http://')}: "
    assert told_of + "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY those of this bucket?" in errors
    assert storage.SECRET not in errors
    assert storage.ACCESS not in errors


def test_missing_credentials_are_told_in_a_line(bucket):
    Store(bucket).write({"runs": runs(0)})
    done = command("validate", bucket, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "access denied by 127.0.0.1:" in done.stderr
    assert "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE" in done.stderr


def test_credentials_and_the_region_may_come_from_a_profile(bucket, tmp_path):
    Store(bucket).write({"runs": runs(0), "curves": curves(0)})
    text = f"[study]\naws_access_key_id = {storage.ACCESS}\naws_secret_access_key = {storage.SECRET}\n"
    (tmp_path / "credentials").write_text(text)
    given = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "study"}
    done = command("compact", bucket, **given, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_DEFAULT_REGION="")
    assert (done.returncode, done.stdout) == (0, f"{bucket}: no files to merge\n"), done.stderr
    other = {**given, "AWS_PROFILE": "other", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    done = command("validate", bucket, **other)
    assert done.returncode == 2
    assert "are the credentials of profile other those of this bucket?" in done.stderr


def test_a_store_that_is_passed_on_has_no_credential(bucket):
    store = Store(bucket)
    store.write({"runs": runs(0)})
    passed = pickle.dumps(store)
    assert pickle.loads(passed).finished() == store.finished()
    assert storage.SECRET.encode() not in passed
    assert storage.ACCESS.encode() not in passed


def test_a_sweep_on_object_storage_is_complete_and_repeats_no_credential(tmp_path, bucket, endpoint):
    smoke, place = ROOT / "grids" / "smoke.toml", f"{bucket}/study"
    printed = ""
    for words in (
        ("sweep", smoke, "--store", place),
        ("sweep", smoke, "--store", place),
        ("validate", place, smoke),
        ("merge", place, tmp_path / "copy"),
        ("export", smoke, "--store", place, "--format", "csv", "--out", tmp_path / "export"),
    ):
        done = command(*words)
        assert (done.returncode, done.stderr) == (0, "")
        printed += done.stdout
    for words in ("30 done, 0 diverged, 0 failed", "nothing to do", "every run of smoke", "copied 24 files"):
        assert words in printed
    page.build(normorder.read_grid(normorder.Asked(smoke)), Store(place), tmp_path / "report")
    content = [printed.encode(), *storage.objects(endpoint, place).values()]
    content += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    content += [repr(pq.read_table(path).to_pylist()).encode() for path in (tmp_path / "copy").rglob("*.parquet")]
    assert len(content) > 60
    secrets = (storage.SECRET.encode(), storage.ACCESS.encode())
    assert [each for each in content if any(secret in each for secret in secrets)] == []
