"""The short form of `make stress`: a kill of each kind, and nothing is lost, doubled, damaged or changed."""

from stress import TURNS, stress


def test_kills_of_workers_nodes_and_driver_lose_double_and_change_nothing(tmp_path):
    found = stress(tmp_path, kills=len(TURNS), trials=20)
    assert found.kills.total() == len(TURNS)
    assert found.kills["worker", "writing"] >= 1
    for target, _ in TURNS:
        assert sum(found.kills[target, phase] for phase in ("training", "writing")) >= 1, found.kills
    assert found.kills["node", "between"] == found.kills["driver", "between"] == 1
    assert found.trials >= 20
    assert (found.lost, found.doubled, found.different, found.corrupt, found.problems) == (0, 0, 0, 0, 0)
