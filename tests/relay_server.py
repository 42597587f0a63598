"""A relay process in a test's hands: started by hand on an abstract socket, killed, stopped, started again."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from typing import Self

from antiphon.hub.backends.relay import supervisor as relay_supervisor
from antiphon.hub.backends.relay.trust import new_key, target
from antiphon.hub.backends.relay.wire import native_address
from antiphon.hub.environment import ENVIRONMENT
from tests import forkserver
from tests.patience import PATIENCE

START_TIMEOUT = PATIENCE


class RelayServer:
    """One relay without a supervisor: after its death it stays dead until `start()`."""

    def __init__(self, *options: str) -> None:
        """`options` of its command line. With any it is ended by SIGTERM, as by hand, and does not end with us."""
        self._options = options
        self.address = f"@antiphon-test-{secrets.token_hex(8)}"
        self.key = new_key()
        self._process: subprocess.Popen[bytes] | forkserver.Forked | None = None

    @property
    def url(self) -> str:
        return f"relay://{target(self.key, self.address)}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the relay was not started"
        return self._process.pid

    def start(self) -> None:
        """Start, and return when it takes connections."""
        arguments = (self.address, *(self._options or ["--with-parent"]))
        environment = os.environ | {ENVIRONMENT: target(self.key, self.address)}
        command = [sys.executable, "-W", "error", "-m", "antiphon.hub.backends.relay", *arguments]
        self._process = forkserver.popen(command, environment)
        if self._process is None:
            # As the supervisor does: without the packages around it, a relay starts in a quarter of the time.
            command = [sys.executable, "-c", relay_supervisor._PROGRAM, str(relay_supervisor._PACKAGE), *arguments]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(native_address(self.address)) == 0:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.close()
                raise RuntimeError("the relay did not start")
            time.sleep(0.01)  # a poll with a deadline: nothing else tells that another process listens

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(START_TIMEOUT)
        assert self._process.stdin is not None
        self._process.stdin.close()

    def terminate(self) -> None:
        """SIGTERM, and wait until it has ended in order."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(START_TIMEOUT)
        assert self._process.stdin is not None
        self._process.stdin.close()

    def stop_answering(self) -> None:
        """SIGSTOP."""
        os.kill(self.pid, signal.SIGSTOP)

    def answer_again(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it; idempotent."""
        if self._process is not None:
            if self._process.poll() is None:
                self.kill()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
