"""The short form of `make stress`: kills of each kind, and nothing is lost, doubled, damaged or changed."""

from stress import TARGETS, stress


def test_kills_of_workers_nodes_and_driver_lose_double_and_change_nothing(tmp_path):
    found = stress(tmp_path, kills=4, trials=20)
    assert {target for target, _ in found.kills} == set(TARGETS)
    assert found.kills.total() == 4
    assert found.kills["worker writing", "writing"] == found.kills["worker training", "training"] == 1
    assert found.trials >= 20
    assert (found.lost, found.doubled, found.different, found.corrupt, found.problems) == (0, 0, 0, 0, 0)
