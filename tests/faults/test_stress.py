"""The short form of `make stress`: kills of each kind, and nothing is lost, doubled, damaged or changed."""

from stress import KINDS, stress


def test_kills_of_workers_nodes_and_driver_lose_double_and_change_nothing(tmp_path):
    found = stress(tmp_path, kills=8, trials=40)
    assert set(found.kills) == set(KINDS)
    assert sum(found.kills.values()) == 8
    assert found.trials >= 40
    assert (found.lost, found.doubled, found.different, found.corrupt, found.problems) == (0, 0, 0, 0, 0)
