"""Seconds of a training step: normorder against the plain loop, on one thread, and the sgemm of the machine.

Each measurement is a process of its own, since the settings of an allocator hold for a whole process: normorder's are
part of normorder. The processes take turns.
"""

import json
import os
import subprocess
import sys
import time
from statistics import median

import network
import plain
import torch
import torch.nn.functional as F
import variants
from torch import nn
from torch.optim.sgd import sgd

import harness
from grids import Cell
from harness import datasets
from harness.engine import BLOCKS, MOST_COMPILED, choose, keep_memory
from harness.pilot import measure
from harness.plan import seeds_in_engine
from harness.stacking import solo, stack
from harness.step import make_step, one_graph
from harness.training import batch_order, build, on_device

COMMON = {"order": "weight-bn-act", "activation": "relu"}
MLP = Cell(dataset="mnist1d", architecture="mlp", depth=8, width=64, batch=32, **COMMON)
CNN = Cell(dataset="fashion_mnist", architecture="cnn", depth=3, width=16, batch=100, **COMMON)
CELLS = {"mlp": MLP, "cnn": CNN}
# One of each architecture that the folder holds, small enough that two cores train a study of it.
SMALL = {
    name: Cell(dataset="digits", architecture=name, depth=4, width=16, batch=64, **COMMON)
    for name in harness.names("architectures")
}
# Of a seed-step of MLP: two products back for one forward, one for the stem, whose input needs no gradient.
FLOPS = MLP.batch * (4 * 40 * 64 + 6 * (8 * 64 * 64 + 64 * 10))
# Convolutions are not compiled on a CPU.
ENGINES = {"mlp": ("plain", "plain-compiled", "eager", "compiled"), "cnn": ("plain", "eager")}


def data_of(name: str) -> datasets.Data:
    """mnist1d, or random numbers in the shape of 28×28 images: the time of a step does not depend on them."""
    if name == "mlp":
        return datasets.load("mnist1d")
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2200, 1, 28, 28, generator=rng).numpy(), (torch.arange(2200) % 10).numpy()
    return datasets.prepare("images", datasets.Examples(x[:2000], y[:2000], x[2000:], y[2000:], 10))


def steps_of(name: str, how: str, seconds: float) -> dict:
    """Seconds of a seed-step, repeated for about `seconds`; of normorder with the S that its pilot chooses."""
    torch.set_num_threads(1)
    cell, data = CELLS[name], data_of(name)
    if how == "plain":
        found = {"step_s": [], "seeds": 1}
        parts = plain.parts(data)
        run = lambda: variants.seconds_per_step(cell, parts, 30)  # noqa: E731
    else:
        keep_memory()
        seeds = choose(measure(cell, data, BLOCKS["cpu"])) if name == "mlp" and how != "plain-compiled" else 1
        found, run = _ours(cell, data, min(seeds, MOST_COMPILED) if how == "compiled" else seeds, how)
    run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(found["step_s"]) < 3:
        found["step_s"].append(run())
    return found


def _ours(cell, data, seeds, how):
    tensors = on_device(data, "cpu")
    model = stack(build(cell, data.shape, data.classes), list(range(seeds))).train()
    batches = batch_order(range(seeds), 1, len(data.x_train), cell.batch)
    step, lr = make_step(model, cell, tensors["x_train"], tensors["y_train"]), 0.01
    if how == "plain-compiled":
        step = _plain_step(cell, data)
    found = {"step_s": [], "seeds": seeds}
    if how.endswith("compiled"):
        start = time.perf_counter()
        graph = one_graph(step)
        step, lr = graph.__enter__(), torch.tensor(0.01)
        step(batches[0], lr)
        found["compile_s"] = time.perf_counter() - start

    def run():
        start = time.perf_counter()
        for i in range(10):
            step(batches[i], lr)
        return (time.perf_counter() - start) / 10 / seeds

    return found, run


def _plain_step(cell, data):
    """The step of one network in ordinary torch.nn, to be compiled whole, as a user could who knows how."""
    model, x, y = network.build(cell, data.shape, data.classes), *map(torch.from_numpy, (data.x_train, data.y_train))
    parameters = list(model.parameters())
    momenta = [torch.zeros_like(p) for p in parameters]
    how = {"weight_decay": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}

    def step(index, lr):
        output, target = model(x[index[0]]), y[index[0]]
        loss = F.cross_entropy(output, target)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            sgd(parameters, list(gradients), momenta, foreach=True, momentum=cell.momentum, lr=lr, **how)
        return loss.detach(), (output.detach().argmax(1) == target).sum(), gradients

    return step


def twin(cell: Cell, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of a cell as ordinary torch.nn modules, of any architecture."""
    return solo(stack(build(cell, shape, classes), [0]), 0)


def architectures(how: str, seconds: float) -> dict[str, dict]:
    """By architecture, seconds of a seed-step of its small network, repeated for about `seconds`, and its S.

    how: "plain", the plain loop with the same network in torch.nn; or "ours", with the S that a pilot chooses where bits
    allow a choice.
    """
    torch.set_num_threads(1)
    data, found = datasets.load("digits"), {}
    if how == "ours":
        keep_memory()
    for name, cell in SMALL.items():
        if how == "plain":
            found[name] = {"step_s": [], "seeds": 1}
            parts = plain.parts(data)
            run = lambda cell=cell, parts=parts: variants.seconds_per_step(cell, parts, 10, twin, warm_up=5)  # noqa: E731
        else:
            alone = seeds_in_engine(cell, data, "cpu", seeds=0) == 1
            seeds = 1 if alone else choose(measure(cell, data, BLOCKS["cpu"]))
            found[name], run = _ours(cell, data, seeds, "eager")
        run()
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(found[name]["step_s"]) < 3:
            found[name]["step_s"].append(run())
    return found


def compare_architectures(rounds: int, seconds: float, environment: dict[str, str]) -> dict[str, dict[str, list[dict]]]:
    """By "plain" and "ours" and architecture: a result a round, in turns."""
    found: dict[str, dict[str, list[dict]]] = {"plain": {}, "ours": {}}
    for _ in range(rounds):
        for how, of in found.items():
            for name, each in ask("architectures", how, str(seconds), environment=environment).items():
                of.setdefault(name, []).append(each)
    return found


def sgemm() -> dict:
    """FLOP/s of one thread in products of 1024 × 1024, the best of several."""
    torch.set_num_threads(1)
    a = torch.randn(1024, 1024)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - start)
    return {"flops": 2 * 1024**3 / min(times)}


def ask(*words: str, environment: dict[str, str]) -> dict:
    """What this file prints in a process of its own."""
    command = [sys.executable, __file__, *words]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def compare(rounds: int, seconds: float, environment: dict[str, str]) -> dict[str, list[dict]]:
    """By 'mlp plain', 'mlp eager', …, 'sgemm': a result a round, in turns. The first round compiles; it is not counted."""
    found: dict[str, list[dict]] = {}
    for turn in range(rounds + 1):
        asked = {f"{name} {how}": (name, how, str(seconds)) for name in ENGINES for how in ENGINES[name]}
        for what, words in {"sgemm": ("sgemm",), **asked}.items():
            if turn or what.endswith("compiled"):
                found.setdefault(what, []).append(ask(*words, environment=environment))
    return found


def seed_step(found: list[dict]) -> list[float]:
    """The median of each round."""
    return [median(each["step_s"]) for each in found]


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    if name == "sgemm":
        said = sgemm()
    elif name == "architectures":
        said = architectures(rest[0], float(rest[1]))
    else:
        said = steps_of(name, rest[0], float(rest[1]))
    sys.stdout.write(json.dumps(said))
    sys.stdout.flush()
    os._exit(0)  # a graph's context is never left
