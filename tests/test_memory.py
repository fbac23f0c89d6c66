"""What a training took of a device's memory."""

import mmap

import torch

from grids import Cell
from harness import memory
from harness.engine import keep_memory
from harness.memory import Probe, of_gpu, taken
from harness.plan import Trial
from harness.trial import run_trial

MB = 1_000_000


def hold(mb):
    """Hold memory for a moment, in parts that the C library keeps afterwards."""
    parts = [torch.ones(mb * MB // 40) for _ in range(10)]
    del parts


def test_the_most_that_was_held_is_told_also_where_the_worker_has_held_more_before():
    keep_memory()
    for mb in (200, 50):
        told = taken("cpu")
        hold(mb)
        assert (mb - 1) * MB < told() < (mb + 10) * MB


def test_what_processes_share_does_not_count():
    told = taken("cpu")
    with mmap.mmap(-1, 100 * MB) as data:
        for _ in range(100):
            data.write(b"1" * MB)
        assert told() < 10 * MB


def test_where_the_system_tells_nothing_it_is_the_most_since_the_process_began(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "none" / "none")
    told = taken("cpu")
    assert told() == 0
    most = memory.of("cpu").peak("cpu")
    held = torch.ones(most // 4)  # as much again as there ever was
    assert told() > most // 2
    del held


def test_the_memory_of_the_machine_is_between_none_and_all_of_it():
    probe = memory.of("cpu")
    assert 2**20 < probe.free("cpu") < probe.total("cpu") < 2**50


def test_a_gpu_has_what_its_context_does_not_take():
    probe = Probe(free=lambda _: 15_500, total=lambda _: 16_000, held=None, restart=None, peak=None)
    assert of_gpu("cpu", probe) == (16_000, 500)


def test_rows_tell_what_a_seed_of_their_trial_took(blobs):
    fields = {"dataset": "x", "architecture": "mlp", "order": "weight-act", "activation": "relu"}
    cell = Cell(**fields, depth=2, width=1000, batch=20, epochs=1)
    rows = run_trial(Trial(cell, (0, 1)), blobs(), {"commit": "", "versions": ""}).tables["runs"].to_pylist()
    ratios = {row["memory_bytes"] / (4 * row["parameters"]) for row in rows}
    assert len(ratios) == 1
    assert 3 < ratios.pop() < 20  # weights, gradients, momentum, the best epoch's; what is no weight is small here
