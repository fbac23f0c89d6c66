"""Checks of an architecture: each shipped one passes, and each check sees a network that breaks what it is about."""

import json

import pytest

import harness
from harness.conformance import CHECKS, check

HEAD = """
import random
import torch
from torch import nn
from harness.architectures import mlp
from harness.layers import Weight, block, network
{facts}

def build(cell, shape, classes):
{body}
"""
SOUND = "    return mlp.build(cell, shape, classes)"
END = "    return network(cell, shape, classes, blocks)"
BLOCKS = "    blocks = nn.Sequential(*({block} for i in range(cell.depth)))\n" + END
FACTS = "CONVOLUTIONS = False"
SPARE = """
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = (block(cell, cell.width, cell.width) for _ in range(2))

        def forward(self, x):
            return self.used(x)

"""
SCALED = """
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.scale = block(cell, cell.width, cell.width), nn.Parameter(torch.ones(1))

        def forward(self, x):
            return self.used(x) * self.scale

"""
COUNTING = """
    class Counting(nn.Module):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return {given}

"""
# What an architecture does wrong: its facts and body, the check that sees it, and its words.
WRONG = {
    "no build": (FACTS, "    pass\ndel build", "says_what_it_is", "it has no function build(cell, shape, classes)"),
    "no statement": ("", SOUND, "says_what_it_is", "it states no CONVOLUTIONS"),
    "a wrong statement": ("CONVOLUTIONS = True", SOUND, "says_what_it_is", "its weight layers have no kernels"),
    "a wrong width": (FACTS + "\nCONSTANT_WIDTH = True", BLOCKS.format(
        block="block(cell, cell.width if not i else cell.width * 2, cell.width * 2)"),
        "has_the_width_it_states", "at width 32, blocks."),
    "wrong logits": (FACTS, "    return mlp.build(cell, shape, classes + 1)", "gives_logits", "the shape is (3, 6, 6)"),
    "one order for all": (FACTS, '    return mlp.build(cell.model_copy(update={"order": "weight-bn-act"}), shape, classes)',
                          "runs_the_order", "with weight-act a block runs weight-bn-act"),
    "blocks of its own": (FACTS, BLOCKS.format(block="nn.Sequential(Weight(cell.width, cell.width), nn.ReLU())"),
                          "runs_the_order", "has 0 blocks of harness.layers.block"),
    "one more activation": (FACTS, BLOCKS.format(block="nn.Sequential(block(cell, cell.width, cell.width), nn.ReLU())"),
                            "leaves_the_rest_alone", "blocks.0.1 computes relu, which no order can move"),
    "global randomness": (FACTS, "    torch.rand(1)\n" + SOUND, "draws_by_seed_alone", "the global generator of torch"),
    "random depth": (FACTS, "    random.random()\n" + SOUND, "draws_by_seed_alone", "the global generator of random"),
    "paths by order": (FACTS, '    blocks = nn.Sequential()\n    for i in range(cell.depth):\n'
        '        blocks.add_module(f"{cell.order}{i}", block(cell, cell.width, cell.width))\n'
        + END, "shares_weights_between_arms", "have no weight layer in the same"),
    "paths from the end": (FACTS, '    blocks = nn.Sequential()\n    for i in reversed(range(cell.depth)):\n'
        '        blocks.add_module(f"{cell.depth - i}of{cell.depth}", block(cell, cell.width, cell.width))\n'
        + END, "keeps_paths_when_deeper", "is there at depth 2 and not at depth 5"),
    "an unused weight": (FACTS, SPARE + BLOCKS.format(block="Spare()"), "trains_every_weight", "it is never used"),
    "a shared tensor": (FACTS, SCALED + BLOCKS.format(block="Scaled()"), "gives_every_tensor_a_seed",
                        "blocks.0 has scale, which all seeds would share"),
    "seeds that mix": (FACTS, SPARE.replace("return self.used(x)", "return self.used(x - x.mean(0))") + BLOCKS.format(
        block="Spare()"), "computes_a_seed_alone", " is "),
    "a hidden activation": (FACTS, "    class Hidden(Weight):\n        def forward(self, x):\n"
        "            return torch.relu(super().forward(x))\n" + BLOCKS.format(
        block="block(cell, cell.width, cell.width, weight=Hidden)"),
        "leaves_the_rest_alone", "blocks.0.weight computes relu, which no order can move"),
    "randomness in evaluation": (FACTS, COUNTING.format(given="x if self.training else x + torch.rand(1)") + BLOCKS.format(
        block="nn.Sequential(block(cell, cell.width, cell.width), Counting())"),
        "draws_by_seed_alone", "the global generator of torch"),
    "a memory": (FACTS, COUNTING.format(given="x * self.calls") + BLOCKS.format(
        block="nn.Sequential(block(cell, cell.width, cell.width), Counting())"),
        "draws_by_seed_alone", "in evaluation it gives something else the second time"),
    "an error": (FACTS, "    raise OSError('no such file')", "says_what_it_is",
                 "OSError: no such file (wrong_an_error.py, line 10)"),
    "no learning": (FACTS, BLOCKS.format(block="nn.Sequential(block(cell, cell.width, cell.width), Dead())").replace(
        "    blocks", "    class Dead(nn.Module):\n        def forward(self, x):\n            return 0 * x\n    blocks", 1),
        "learns", "the validation loss goes from"),
}  # fmt: skip
WHAT = {each.__name__: each.__doc__.splitlines()[0].rstrip(".") for each in CHECKS}


@pytest.fixture
def written(architectures):
    """Writes an architecture, and gives its name."""

    def write(name, facts, body):
        (architectures / f"{name}.py").write_text(HEAD.format(facts=facts, body=body))
        return name

    return write


@pytest.mark.parametrize("name", harness.names("architectures"))
def test_every_architecture_passes_every_check(name):
    assert [each for each in check(name) if each.problem] == []


@pytest.mark.parametrize("what", WRONG)
def test_each_check_sees_what_it_is_about(written, what):
    facts, body, sees, words = WRONG[what]
    name = written(f"wrong_{what.replace(' ', '_')}", facts, body)
    found = dict(check(name))
    assert words in found[WHAT[sees]]


def test_of_a_network_that_cannot_be_built_one_check_fails(written):
    name = written("wrong_name", FACTS, "    return undefined")
    assert [each.problem for each in check(name)] == [
        "NameError: name 'undefined' is not defined (wrong_name.py, line 10)"
    ]


def test_every_check_has_something_that_it_sees():
    assert {sees for *_, sees, _ in WRONG.values()} >= {each.__name__ for each in CHECKS}


def test_the_command_lists_the_checks_and_fails_with_one(written, told):
    name = written("wrong_command", FACTS, "    torch.rand(1)\n" + SOUND)
    code, out, _ = told("check-architecture", name)
    assert code == 1
    assert f"NO  {WHAT['draws_by_seed_alone']}: it draws from the global generator of torch" in out
    assert f"ok  {WHAT['learns']}" in out
    assert f"{name}: 1 of {len(CHECKS)} checks fails, so its arms cannot be compared" in out
    assert (
        sum(bool(each["problem"]) for each in json.loads(told("check-architecture", name, "--json")[1])["checks"]) == 1
    )
    code, _, errors = told("check-architecture", "resnett")
    assert (code, "no architecture resnett; did you mean resnet? there are " in errors) == (2, True)
