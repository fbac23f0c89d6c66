"""How a trial is computed: the rules that choose, the words that rows keep, and what the process is told at its start."""

import os
import platform
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grids import Cell
from harness import engine
from harness.engine import (
    COMPILED,
    EAGER,
    MEMORY_SHARE,
    Pilot,
    batch_sizes,
    can_compile,
    choose,
    compile_options,
    describe,
    graph,
    keep_memory,
    marker,
    pays,
    recall,
    seeds_in,
    shape,
)

ROOT = Path(__file__).parent.parent


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-act", "activation": "relu", "depth": 2}
    return Cell(**{**defaults, "width": 16, "batch": 10, "lr": 0.05, **fields})


# S


def test_the_fastest_s_is_chosen_and_of_those_that_are_almost_as_fast_the_largest():
    assert choose(Pilot({8: 1.0, 16: 0.8, 32: 0.9}, 0.1, 99)) == 16
    assert choose(Pilot({8: 1.0, 16: 0.8, 32: 0.839}, 0.1, 99)) == 32
    assert choose(Pilot({8: 0.8, 16: 0.9, 32: 1.0}, 0.1, 99)) == 8


def test_where_no_measured_s_fits_the_memory_it_is_what_the_memory_holds_and_at_least_one():
    assert choose(Pilot({}, 0.0, 5)) == 5
    assert choose(Pilot({}, 0.0, 0)) == 1


def test_a_trial_has_no_more_seeds_than_the_memory_holds_where_it_is_known():
    assert choose(Pilot({8: 1.0, 16: 0.8, 32: 0.7}, 0.1, 20)) == 20
    assert seeds_in(20_000 / MEMORY_SHARE, 1000) == 20
    assert [seeds_in(None, 1000), seeds_in(inf, 1000), seeds_in(20_000, None)] == [inf] * 3


# What is shared


def test_cells_that_are_computed_in_the_same_number_of_steps_share_a_shape(blobs):
    data = blobs()
    base = shape(make(), data)
    same = ({"lr": 0.1}, {"activation": "tanh"}, {"order": "weight-bn-act"}, {"epochs": 9}, {"optimiser": "adam"})
    assert all(shape(make(**change), data) == base for change in same)
    other = ({"depth": 3}, {"width": 17}, {"batch": 11}, {"activation": "maxout"}, {"architecture": "cnn"})
    other += ({"after_sum": "bn"}, {"branch_end": "weight"})
    assert all(shape(make(**change), data) != base for change in other)
    assert shape(make(), blobs((7,))) != base
    assert shape(make(), blobs(classes=4)) != base


def test_cells_that_differ_in_rate_and_length_share_a_graph(blobs):
    data = blobs()
    base = graph(make(), data, 8)
    same = (
        {"lr": 0.1},
        {"schedule": "constant"},
        {"epochs": 9},
        {"init": "lsuv", "init_gain": 3},
        {"label_noise": 0.1},
    )
    assert all(graph(make(**change), data, 8) == base for change in same)
    changes = ({"depth": 3}, {"activation": "tanh"}, {"order": "weight-bn-act"}, {"optimiser": "adam"})
    changes += ({"affine": False}, {"bias": False}, {"weight_decay_norm": False}, {"head_norm": "ln"}, {"groups": 2})
    changes += ({"momentum": 0.5}, {"weight_decay": 0.1}, {"batch": 11}, {"width": 17}, {"after_sum": "bn"})
    changes += ({"after_blocks": "act"},)
    assert all(graph(make(**change), data, 8) != base for change in changes)
    assert graph(make(), data, 7) != base
    assert graph(make(), blobs(train=110), 8) != base  # examples are an input of fixed size


def test_an_equal_graph_has_one_marker_and_other_code_another(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    data = blobs()
    base = marker(make(), data, 8, "code")
    assert base == marker(make(lr=0.1), blobs(), 8, "code")
    assert base.parent == tmp_path / "graphs"
    assert len({base, marker(make(), data, 8, "other"), marker(make(depth=3), data, 8, "code")}) == 3
    monkeypatch.setattr(engine, "version", lambda package: "9.9")
    assert marker(make(), data, 8, "code") != base  # of another torch


def test_batch_sizes_are_those_of_steps_and_evaluations(blobs):
    data = blobs(train=1200, test=60)
    train, val = len(data.x_train), len(data.x_val)
    assert set(batch_sizes(7, data)) == {7, 1000, train - 1000, val, 60}


# Eager or compiled


@pytest.mark.parametrize(
    ("order", "convolves", "device_type", "expected"),
    [
        ("weight-bn-act", False, "cpu", True),
        ("weight-drop-act", False, "cpu", False),
        ("drop-weight-act", False, "cuda", False),
        ("weight-bn-act", True, "cpu", False),
        ("weight-bn-act", True, "cuda", True),
    ],
)
def test_what_can_be_compiled(order, convolves, device_type, expected):
    assert can_compile(make(order=order), convolves, device_type) == expected


def test_a_graph_pays_where_it_saves_more_than_it_costs():
    pilot = Pilot({8: 1.2e-3}, 0.2e-3, 99)  # 1 ms a seed and step that a graph can shorten
    costs = engine.PAYS * (engine.COMPILE_S + 3 * engine.LOAD_S) / (1e-3 * engine.SAVED)  # seed-steps
    assert not pays(round(costs * 0.99), pilot, 8, uncached=1, trials=3)
    assert pays(round(costs * 1.01), pilot, 8, uncached=1, trials=3)
    cheaper = engine.PAYS * 3 * engine.LOAD_S / (1e-3 * engine.SAVED)
    assert pays(round(cheaper * 1.01), pilot, 8, uncached=0, trials=3)
    assert not pays(round(cheaper * 0.99), pilot, 8, uncached=0, trials=3)
    assert not pays(10**9, Pilot({8: 1e-3}, 1e-3, 99), 8, uncached=0, trials=1)


def test_gpus_replay_whole_steps():
    assert compile_options("cpu") == {}
    assert compile_options("cuda") == {"mode": "reduce-overhead"}


# Words


@given(
    st.sampled_from(["cpu", "cuda", "mps"]),
    st.sampled_from(["AVX512", "AVX2", "DEFAULT"]),
    st.sampled_from([EAGER, COMPILED]),
    st.sampled_from([None, 1, 8]),
)
def test_an_engine_is_recalled_as_it_was_described(device_type, capability, mode, seeds):
    words = describe(device_type, capability, "2.13.0", mode, seeds)
    assert recall(words) == (device_type, mode)
    assert words.endswith(f", S={seeds}") == (seeds is not None)


def test_an_engine_in_words():
    assert describe("cpu", "AVX512", "2.13.0", COMPILED, None) == "cpu, AVX512, torch 2.13.0, compiled"
    assert describe("cpu", "AVX512", "2.13.0", EAGER, 1) == "cpu, AVX512, torch 2.13.0, eager, S=1"


@pytest.mark.parametrize("engine", ["cpu, AVX512, torch 2.13.0", "cpu, AVX512, torch 2.13.0, S=1", "cpu", ""])
def test_an_engine_of_before_there_were_graphs_is_eager(engine):
    assert recall(engine) == (engine.split(", ")[0], EAGER)


# The process


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_memory_that_a_step_frees_is_kept_for_the_next():
    assert keep_memory() is True  # which says little: glibc takes any setting

    def faults(first):
        """New pages that the system gives to a process which takes and frees 40 MB, fifty times."""
        steps = f"import numpy as np, resource; from harness.engine import keep_memory; {first}; np.ones(10**7, 'f4')"
        count = "resource.getrusage(resource.RUSAGE_SELF).ru_minflt"
        code = f"{steps}; before = {count}; all(np.ones(10**7, 'f4').size for _ in range(50)); print({count} - before)"
        return int(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)

    assert faults("keep_memory()") < 50 < faults("None")  # how many more, the sizes of pages decide


def test_a_process_that_trains_has_its_settings_before_torch_starts():
    names = ("MKL_CBWR", "TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_COMPILE_THREADS")
    code = f"import os, sys, harness.engine; print('torch' in sys.modules, *map(os.environ.get, {names}), sep='\\n')"

    def settings(**environment):
        clean = {name: value for name, value in os.environ.items() if name not in names}
        command = [sys.executable, "-c", code]
        answer = subprocess.run(
            command, env={**clean, **environment}, cwd=ROOT, capture_output=True, text=True, check=True
        )
        return answer.stdout.split("\n")[:4]

    torch, products, folder, threads = settings()
    assert (torch, products, Path(folder).name, threads) == ("False", "AUTO,STRICT", "compiled", "1")
    given = settings(TORCHINDUCTOR_CACHE_DIR="/elsewhere", TORCHINDUCTOR_COMPILE_THREADS="3", MKL_CBWR="AVX2")
    assert given == ["False", "AUTO,STRICT", "/elsewhere", "3"]  # bits are no matter of taste
