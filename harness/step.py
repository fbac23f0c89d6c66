"""One step of training for all seeds of a model: gather a batch, forward, backward, update.

`make_step` gives it as ordinary calls of torch (eager), `one_graph` as a single compiled graph. A graph that holds the
optimiser too has next to no Python in a step and reuses its memory.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from grids import Cell
from harness.augmentation import moved
from harness.engine import compile_options
from harness.normalizations import Normalization

# step(index (S, B), lr, moves (S, B, D + 1) of `augmentation` if any)
#     -> loss (S,), right answers (S,), gradients in the order of the parameters
Step = Callable[..., tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]]


class NotCompiled(RuntimeError):
    """A step that was to be one graph is none."""


def make_step(model: nn.Module, cell: Cell, x: torch.Tensor, y: torch.Tensor) -> Step:
    """The step of `model` on examples x (N, C, *space), y (N,). It changes the model and keeps the optimiser's state.

    lr is a tensor () for a graph, which a number would be baked into, and a number for eager steps.
    """
    parameters = list(model.parameters())
    update = _update(cell, parameters, _of_norms(model))

    def step(index, lr, moves=None):
        batch = x.index_select(0, index.flatten())
        if moves is not None:
            batch = moved(batch, moves.flatten(0, 1))
        batch = batch.unflatten(0, index.shape).movedim(1, 2)  # (S, C, B, *space)
        loss, right = step_losses(model, batch, y[index])
        gradients = torch.autograd.grad(loss.sum(), parameters)  # the seeds never meet
        with torch.no_grad():
            update(gradients, lr)
        return loss.detach(), right, gradients

    return step


def step_losses(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean loss of each seed and the number it classifies right. x (S, C, B, *space), y (S, B) -> (S,), (S,)"""
    logits = model(x)  # (S, classes, B)
    loss = F.cross_entropy(logits, y, reduction="none").mean(1)
    return loss, (logits.detach().argmax(1) == y).sum(1)


def _of_norms(model: nn.Module) -> list[bool]:
    """Of each parameter, whether it is a normalization's."""
    norms = {p for layer in model.modules() if isinstance(layer, Normalization) for p in layer.parameters()}
    return [parameter in norms for parameter in model.parameters()]


def _update(cell: Cell, parameters: list[torch.Tensor], of_norms: list[bool]) -> Callable:
    """update(gradients in the order of the parameters, lr), with weight decay where the cell wants it."""
    if cell.weight_decay_norm or not cell.weight_decay:
        return _optimiser(cell, parameters, cell.weight_decay)
    parts = []  # the indices of the parameters that decay, and of those that do not, with their updates
    for decay, wanted in ((cell.weight_decay, False), (0.0, True)):
        part = [i for i, of_norm in enumerate(of_norms) if of_norm == wanted]
        if part:
            parts.append((part, _optimiser(cell, [parameters[i] for i in part], decay)))

    def update(gradients, lr):
        for part, update_part in parts:
            update_part([gradients[i] for i in part], lr)

    return update


def _optimiser(cell: Cell, parameters: list[nn.Parameter], weight_decay: float) -> Callable:
    """update(gradients, lr) by torch's own SGD with momentum or Adam. foreach, not fused: its bits depend on S."""
    zeros = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters] if cell.optimiser == "adam" else []
    if parameters[0].is_cuda:
        for state in (*zeros, *squares):
            torch._dynamo.mark_static_address(state)  # CUDA graphs change only tensors that stay where they are
    if cell.optimiser == "sgd":

        def update(gradients, lr):
            sgd(
                parameters, list(gradients), zeros, foreach=True, has_sparse_grad=False, lr=lr,
                momentum=cell.momentum, weight_decay=weight_decay, dampening=0.0, nesterov=False, maximize=False,
            )  # fmt: skip

        return update
    steps = [torch.zeros(()) for _ in parameters]

    # capturable in a graph: only so does it take the rate as a tensor
    def update(gradients, lr):
        adam(
            parameters, list(gradients), zeros, squares, [], steps, foreach=True, fused=False, differentiable=False,
            capturable=torch.compiler.is_compiling(), grad_scale=None, found_inf=None, has_complex=False, amsgrad=False,
            lr=lr, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=weight_decay, maximize=False,
        )  # fmt: skip

    return update


def first_step(cell: Cell, model: nn.Module, gradients: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The parameters of `model` after a first step of the optimiser at the peak learning rate. Changes nothing."""
    copies = [parameter.detach().clone() for parameter in model.parameters()]
    with torch.no_grad():
        _update(cell, copies, _of_norms(model))(gradients, cell.lr)
    return copies


@contextmanager
def one_graph(step: Step, device_type: str = "cpu"):
    """Give `step` as one compiled graph. NotCompiled where that cannot be, before anything was trained.

    After its first call no guards are evaluated, which cost a tenth of a step: nothing they watch changes in a training.
    At the end, NotCompiled if anything was compiled again, or was no longer compiled, which Dynamo does in silence.
    """
    torch.compiler.reset()  # else it gives up after 8 graphs of one function
    counters = torch._dynamo.utils.counters  # loaded here: it costs every process a second, and few compile
    counters.clear()
    graph = torch.compile(step, fullgraph=True, dynamic=False, **compile_options(device_type))
    with torch._dynamo.config.patch(trace_autograd_ops=True), ExitStack() as after_first:

        def call(index, lr):
            first = not counters["stats"]["unique_graphs"]
            if not first:
                torch.compiler.cudagraph_mark_step_begin()  # nothing of an earlier step is needed any more
            try:
                loss, right, gradients = graph(index, lr)
            except Exception as error:  # whatever Dynamo, Inductor or the C++ compiler raises, later of another shape
                words = " ".join(filter(None, map(str.strip, str(error).splitlines()[:2])))  # the 2nd has the reason
                raise NotCompiled(f"{type(error).__name__}: {words}") from error
            if first:
                after_first.enter_context(torch.compiler.set_stance(skip_guard_eval_unsafe=True))
            return loss.clone(), right.clone(), gradients

        yield call
    graphs = counters["stats"]["unique_graphs"]
    if graphs != 1 or counters["graph_break"]:
        raise NotCompiled(f"{graphs} graphs and {len(counters['graph_break'])} breaks in place of one graph")
