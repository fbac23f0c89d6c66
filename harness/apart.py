"""Run a function in a process of its own, which a terminal's signals do not reach and whose end is always told.

Ray takes signals for itself, and ends the process that uses it where Ray's own processes are lost, sometimes without a
word. So what uses Ray runs apart, and the process that a user starts and stops knows nothing of Ray.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from _thread import interrupt_main
from collections.abc import Callable
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from grids import WrongUse

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # Ctrl-C, a system that stops, Slurm some time before the end
GRACE_S = 6.0  # to end in order
LONGEST = 16  # bytes of the folder in which a sweep's own is made: Ray's sockets below have 87 more, of 103 on macOS


class Lost(WrongUse):
    """The process ended without an answer: it was killed, or Ray ended it."""


@contextmanager
def interruptible():
    """Signals raise KeyboardInterrupt; after the block, as before it."""
    before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number, _):
    raise KeyboardInterrupt


def ignore_signals() -> None:
    """From the first one on: later ones must not cut off what it leads to."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def apart(function: Callable, *arguments: Any) -> Any:
    """What function(*arguments) gives or raises in a new process. All of it must bear pickle.

    Lost where the process ends without an answer. At a KeyboardInterrupt here it has GRACE_S seconds to end in order; it
    ends as well where this process does.
    """
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # here, since it lets signals through again
    ours, theirs = context.Pipe()
    process = context.Process(target=_answer, args=(theirs, function, arguments))
    try:
        with _held_back() as held:
            process.start()
            theirs.close()
        if held:
            raise KeyboardInterrupt
        while not ours.poll(0.1) and process.exitcode is None:
            pass
        answer, error = _received(ours, process)
    except KeyboardInterrupt:
        ignore_signals()
        ours.close()  # which asks it to end
        raise
    finally:
        if process.pid:  # it was started
            process.join(GRACE_S)
            process.kill()
            process.join()
        ours.close()
    if error:
        raise error
    return answer


@contextmanager
def _held_back():
    """Signals are noted in the list that this gives, and held back from processes that start meanwhile.

    Both, since a mask is of one thread, and libraries have others here, by which a signal comes through.
    """
    held: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: held.append(number)) for number in SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield held
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _received(ours: Connection, process: multiprocessing.Process) -> tuple[Any, Exception | None]:
    try:
        return ours.recv()
    except (EOFError, OSError):
        time.sleep(1.0)  # where all processes get a signal, ours may come last
        process.join(GRACE_S)
        code = process.exitcode
        how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
        raise Lost(f"the process that drives Ray was lost: {how}") from None


def _answer(theirs: Connection, function: Callable, arguments: tuple) -> None:
    """The new process: a session of its own, which a terminal's signals do not reach; it ends with the other one."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which interrupt_main calls
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # Ray's processes end by SIGTERM, or only after a second each
    os.set_inheritable(theirs.fileno(), False)
    try:
        threading.Thread(target=_end_with, args=(theirs,), daemon=True).start()
        answer = function(*arguments), None
    except KeyboardInterrupt:
        return
    except Exception as error:
        error.add_note("".join(traceback.format_exception(error)))
        answer = None, error
    with suppress(OSError):  # where nobody waits for it any more
        try:
            theirs.send(answer)
        except (pickle.PicklingError, TypeError, AttributeError):
            theirs.send((None, RuntimeError("".join(traceback.format_exception(answer[1])))))
    try:
        sys.stdout.flush()
    except OSError:  # it is closed or full: what is left would be tried once more, and told of in twelve lines
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end_with(theirs: Connection) -> None:
    with suppress(EOFError, OSError):
        theirs.recv()
    interrupt_main()
    time.sleep(GRACE_S)  # Ray swallows an interrupt now and then
    os._exit(1)


def private_folder() -> tempfile.TemporaryDirectory:
    """A folder that only this user can enter, for what a sweep needs while it runs."""
    usual = tempfile.gettempdir()
    # Errors are ignored since processes of Ray that outlive a killed one may still write there.
    return tempfile.TemporaryDirectory(
        prefix="normorder-", dir=usual if len(os.fsencode(usual)) <= LONGEST else "/tmp", ignore_cleanup_errors=True
    )
