"""Object storage for tests: a server of its own process that speaks S3, and a way to it that can be disturbed."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import boto3

ACCESS, SECRET = "PLANTEDACCESSKEY", "planted/secret+of+tests"
# It ends with the tests, also where they are killed: then its input is closed.
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """A server that does not outlive the block; gives its address."""
    command = [sys.executable, "-c", SERVER]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, **quiet) as server:
        try:
            port = next(line.strip() for line in server.stdout if line.strip().isdigit())  # after words of moto's own
            yield f"http://127.0.0.1:{port}"
        finally:
            server.stdin.close()
            server.wait(timeout=30)


def environment(endpoint: str) -> dict[str, str]:
    """What reaches a server; nothing of the machine that tests run on."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
    }


def client(endpoint: str, service: str = "s3"):
    """A second way to the storage, that of boto3."""
    return boto3.client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS,
        aws_secret_access_key=SECRET,
        region_name="us-east-1",
    )


def objects(endpoint: str, store: str) -> dict[str, bytes]:
    """What is in a store, by key below its address."""
    bucket, _, prefix = store.removeprefix("s3://").partition("/")
    s3 = client(endpoint)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix + "/" if prefix else "")
    keys = [each["Key"] for page in pages for each in page.get("Contents", ())]
    found = {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys if not key.endswith("/")}
    return {key.removeprefix(prefix + "/"): content for key, content in found.items()}


class Way:
    """Carries bytes between clients and a server. `cut` closes connections, `held` keeps what comes, after so many bytes."""

    def __init__(self, endpoint: str):
        self.server = ("127.0.0.1", int(endpoint.rpartition(":")[2]))
        self.door = socket.create_server(("127.0.0.1", 0))
        self.door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # so that little waits where nobody counts it
        self.endpoint = f"http://127.0.0.1:{self.door.getsockname()[1]}"
        self.cut = self.held = float("inf")
        self.carried = 0  # bytes towards the server of the connection that has sent most
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._join, args=(self.door.accept()[0],), daemon=True).start()

    def _join(self, ours: socket.socket) -> None:
        with ours, socket.create_connection(self.server) as theirs:
            back = threading.Thread(target=self._carry, args=(theirs, ours, False), daemon=True)
            back.start()
            self._carry(ours, theirs, upwards=True)
            back.join()

    def _carry(self, one: socket.socket, other: socket.socket, upwards: bool) -> None:
        carried = 0
        with contextlib.suppress(OSError):
            while (some := one.recv(65536)) and not (upwards and carried + len(some) > self.cut):
                carried += len(some) if upwards else 0
                self.carried = max(self.carried, carried)
                while upwards and carried > self.held:
                    time.sleep(0.01)
                other.sendall(some)
        for each in (one, other):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut = 0
        self.held = float("inf")
        with contextlib.suppress(OSError):
            self.door.shutdown(socket.SHUT_RDWR)  # which ends an accept, as closing alone does not
        self.door.close()
