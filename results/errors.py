"""What can be wrong with a store, in one line each."""

from grids import WrongUse


class StoreError(WrongUse):
    """One line: which path, and what is wrong with it."""


class Vanished(StoreError):
    """A listed file is not there any more: another process has merged it into a larger one."""


class OutOfReach(StoreError):
    """Nothing is known of the file: object storage did not answer or refused, or this machine has too little memory for it,
    too many open files or a failing disk."""
