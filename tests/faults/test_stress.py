"""The short form of `make stress`: a kill of each kind, and nothing is lost, doubled, damaged or changed."""

from stress import TURNS, stress


def test_kills_of_workers_nodes_and_driver_lose_double_and_change_nothing(tmp_path):
    found = stress(tmp_path, kills=len(TURNS), trials=20)
    assert found.kills.total() == len(TURNS)
    for target, when in TURNS:
        phases = (when,) if when != "training" else ("training", "writing")
        assert sum(found.kills[target, phase] for phase in phases) >= 1, found.kills
    assert found.trials >= 20
    assert (found.lost, found.doubled, found.different, found.corrupt, found.problems) == (0, 0, 0, 0, 0)
