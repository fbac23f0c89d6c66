"""Connect to a Ray cluster, send it the code, and have every node show that it can train before anything does.

From outside, by an address ray://, a sweep is a task of the cluster itself, whose words are told here.

Beside sweep.py the only file that imports ray.
"""

import contextlib
import importlib
import io
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")  # what its raylet says of lost workers: we do
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# What Ray starts here listens on loopback alone, as on macOS; else on every interface. One that it joins stays as it is.
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import ray
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from grids import Resources, WrongUse
from harness import HERE, plugins
from harness.apart import Lost
from harness.placement import Node, slots, unmet
from harness.provenance import versions
from results import Store, StoreError

OBJECT_STORE_BYTES = 500_000_000
ACCELERATOR = "accelerator_type:"  # how Ray names the resource that stands for a kind
ROOMS = ("grids", "harness", "results", "reports")  # what workers import, and what decides on more seeds
WAITS_S = (1, 2, 4, 8, 15)  # between tries to use a store
HEAD = "node:__internal_head__"  # the resource by which Ray marks it
SOME = 0.001  # of a resource of which Ray gives each node 1, as a mark
PRINT_EVERY_S = 0.5
ASK_S = 30.0  # for a cluster to answer, which takes 0.6 s here
NODE_S = 120.0  # for a node to show what it can
TRIES = 3  # from outside: the process that Ray starts for us at times ends at once (github.com/ray-project/ray/issues/63202)


class ClusterError(WrongUse):
    """One line: what the cluster cannot give."""


NO_TOKEN = "wants a token, in RAY_AUTH_TOKEN or in ~/.ray/auth_token"


@contextmanager
def cluster(address: str | None = None, scratch: Path | None = None):
    """Connect to the Ray cluster at `address`, or start one on this machine.

    Nodes of a cluster elsewhere get this program's code as it is on the disk, new and changed files included. One that is
    started here has its sockets, logs and token in `scratch`, a folder that only this user can enter.
    """
    # It would tell of its tokens, of result files that it was asked not to write, of a lost worker in thirty lines.
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    if address:
        _use_token_where_wanted(address)
    started_here = not ray.is_initialized()
    if started_here:
        try:
            how = _elsewhere() if address else _here(scratch)
            with warnings.catch_warnings(action="ignore"):  # the error says the same
                # "local" starts one even where RAY_ADDRESS or an earlier `ray start` would offer another.
                _connect(address=address or "local", log_to_driver=False, configure_logging=False, **how)
        except ray.exceptions.AuthenticationError:  # RAY_AUTH_MODE asks for a token that is not there
            raise ClusterError(f"{address or 'this machine'}: {NO_TOKEN}") from None
        except (OSError, ValueError, RuntimeError) as error:
            # What failed on the cluster's side comes as a traceback, whose last line says what.
            why = str(error).strip().splitlines()[-1 if isinstance(error, ConnectionAbortedError) else 0]
            raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {why}") from None
    try:
        yield
    except (ray.exceptions.RayTaskError, BrokenPipeError):
        raise  # an error of what ran there; or nobody reads what is printed
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise Lost(f"the Ray cluster was lost: {str(error).strip().splitlines()[0]}") from error
    finally:
        if started_here:
            ray.shutdown()


def _connect(**how: Any) -> None:
    for left in reversed(range(TRIES)):
        try:
            ray.init(**how)
            return
        except ConnectionAbortedError:
            if not left:
                raise


def _here(scratch: Path | None) -> dict[str, object]:
    """Ray lets everybody write to its folder, whose sockets and code others could exchange, and its token lies where others
    may read it: so both go into a folder of this user's own. Where RAY_TMPDIR is set, they stay there.
    """
    how: dict[str, object] = {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    if kept := os.environ.get("RAY_TMPDIR"):
        Path(kept).mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix="normorder-", dir=kept))
    if scratch:
        token = scratch / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(token))
        how["_temp_dir"] = str(scratch / "ray")
    return how


def _elsewhere() -> dict[str, object]:
    modules = [str(HERE.parent / room) for room in ROOMS]
    sent = {plugins.VARIABLE: os.environ[plugins.VARIABLE]} if plugins.VARIABLE in os.environ else {}
    return {
        "runtime_env": {
            "env_vars": sent,
            "py_modules": modules,
            "excludes": ["data/", "published/", "build/", "__pycache__/"],
        }
    }


def _use_token_where_wanted(address: str) -> None:
    """By itself Ray takes this user's token for `auto` alone, and also where the nodes of a cluster have none and then could
    not answer.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    wanted = _wants_token(address)
    if address.startswith("ray://") or wanted:
        found = maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
        if wanted and not found:
            raise ClusterError(f"{address}: {NO_TOKEN}")
    else:
        os.environ["RAY_AUTH_MODE"] = "disabled"


def _wants_token(address: str) -> bool:
    """Whether a cluster refuses who has none; False where only its use can tell.

    ClusterError where it does not answer, since Ray itself would try for a quarter of an hour.
    """
    if address.startswith("ray://"):
        return False
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    without = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    try:
        told = subprocess.run(ask, env=without, capture_output=True, text=True, timeout=ASK_S, check=False)
    except subprocess.TimeoutExpired:
        raise ClusterError(f"no Ray cluster at {address}: has not answered for {ASK_S:.0f} s") from None
    if told.returncode and "InvalidAuthToken" not in told.stderr:
        why = told.stderr.strip().splitlines()[-1:] or ["it is not well"]
        raise ClusterError(f"no Ray cluster at {address}: {why[0]}")
    return told.returncode != 0


def run_there(function: Callable, *arguments: Any) -> Any:
    """What function(*arguments) gives or raises on the head of the cluster; what it prints is printed here meanwhile."""
    head = {HEAD: SOME}
    printed = ray.remote(num_cpus=0, resources=head)(_Printed).remote()
    task = ray.remote(num_cpus=0, resources=head, max_retries=0)(_printing)
    try:
        answer = task.remote(printed, function, *map(ray.put, arguments))
        while not ray.wait([answer], timeout=PRINT_EVERY_S)[0]:
            print(ray.get(printed.take.remote()), end="")
        print(ray.get(printed.take.remote()), end="")
        return ray.get(answer)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None


def _printing(printed: ray.actor.ActorHandle, function: Callable, *arguments: Any) -> Any:
    """On the cluster: what function gives, with its words sent to `printed`."""
    with contextlib.redirect_stdout(_Sent(printed)):
        return function(*arguments)


class _Sent(io.TextIOBase):
    """A text file whose content goes to an actor."""

    def __init__(self, printed: ray.actor.ActorHandle):
        self.printed = printed

    def write(self, text: str) -> int:
        ray.get(self.printed.add.remote(text))  # waits, so that what is said at last is there with the answer
        return len(text)


class _Printed:
    """Holds what was printed until it is taken."""

    def __init__(self):
        self.text = ""

    def add(self, text: str) -> None:
        self.text += text

    def take(self) -> str:
        text, self.text = self.text, ""
        return text


def nodes() -> list[Node]:
    """What each node offers."""
    return [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _node(has: Mapping[str, float]) -> Node:
    kinds = sorted(name for name in has if name.startswith(ACCELERATOR))
    kind = kinds[0].removeprefix(ACCELERATOR) if kinds else ""
    return Node(has.get("CPU", 0.0), has.get("GPU", 0.0), kind, has.get("memory", inf))


def check_met(found: list[Node], asked: Resources) -> None:
    """ClusterError, with the sizes, where no node can ever run a trial."""
    if lack := unmet(found, asked):
        raise ClusterError(lack)


def check_nodes(store: Store, mark: str, resources: Resources) -> None:
    """Have each node that can run a trial show that it can import this program, as the driver does, and use this store.

    ClusterError names each node that cannot, and why. Data sets need no look: nodes get them from the driver. mark: of the
    store, as the driver sees it.
    """
    able = [node for node in ray.nodes() if node["Alive"] and slots([_node(node["Resources"])], resources)]
    task = ray.remote(num_cpus=0, max_retries=0)(_problem)
    asked = []
    for node in able:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        asked.append(task.options(scheduling_strategy=there).remote(str(store.path), mark, versions()))
    ray.wait(asked, num_returns=len(asked), timeout=NODE_S)
    problems = [_answered(reference) for reference in asked]
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    found = []
    for node, problem in zip(able, problems, strict=True):
        if problem and node["NodeID"] in alive:  # one that has left since needs no mending
            found.append(f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}): {problem}")
    if found:
        raise ClusterError(f"{len(found)} of {len(able)} nodes cannot train: {'; '.join(found)}")


def _answered(reference: ray.ObjectRef) -> str | None:
    try:
        return ray.get(reference, timeout=0)
    except ray.exceptions.GetTimeoutError:
        return f"has not answered for {NODE_S:.0f} s"
    except ray.exceptions.RayError as error:
        return str(error).strip().rpartition("\n")[2]


def _problem(store: str, mark: str, wanted: Mapping[str, str]) -> str | None:
    """On a node: what it lacks, if anything."""
    here = versions()
    try:
        importlib.import_module("harness.sweep")  # and torch, and all else that trials need
    except Exception as error:
        return f"cannot import what trials need: {type(error).__name__}: {error}"
    other = [name for name in wanted if here.get(name) != wanted[name]]
    if other:
        return ", ".join(f"{name} {here.get(name)} where the driver has {wanted[name]}" for name in other)

    def look() -> None:
        Store(store).check_mark(mark)
        Store(store).check_writable()

    try:
        patiently(look)
    except StoreError as error:
        return str(error)
    return None


def patiently(use: Callable[[], None]) -> None:
    """Use a store, again after a while where it fails: disks of a network lag and go away for moments."""
    for wait_s in WAITS_S:
        try:
            return use()
        except (OSError, StoreError):
            time.sleep(wait_s)
    return use()
