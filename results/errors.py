"""What can be wrong with a store, in one line each."""

from grids import WrongUse


class StoreError(WrongUse):
    """One line: which path, and what is wrong with it."""


class Vanished(StoreError):
    """A listed file is not there any more: another process has merged it into a larger one."""


class OutOfReach(StoreError):
    """Object storage did not answer, or refused: nothing is known of the file."""
