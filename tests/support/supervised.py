"""`forebay serve` in a separate process, for tests of process failures."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading

from tests.support.guard import HANG_GUARD_S


class Served:
    """A command that serves: its ready lines and its standard error as they come."""

    def __init__(self, process):
        self.process = process
        self.ready = []
        self._log = []
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._collect_ready, name="ready lines"),
            threading.Thread(target=self._collect_log, name="log lines"),
        ]
        for thread in self._threads:
            thread.start()

    def _collect_ready(self):
        for line in self.process.stdout:
            with self._changed:
                self.ready.append(json.loads(line))
                self._changed.notify_all()

    def _collect_log(self):
        for line in self.process.stderr:
            with self._changed:
                self._log.append(line)
                self._changed.notify_all()

    def wait_log(self, words, count):
        """Wait until `count` lines of the log have these words."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.log.count(words) >= count, HANG_GUARD_S), self.log

    def wait_ready(self, count=1):
        """The `count`-th ready line."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ready) >= count, HANG_GUARD_S), self.log
        return self.ready[count - 1]

    def wait(self):
        """The exit code."""
        code = self.process.wait(HANG_GUARD_S)
        for thread in self._threads:
            thread.join(HANG_GUARD_S)
        return code

    @property
    def log(self):
        return "".join(self._log)


@contextlib.contextmanager
def served(*arguments, environment=None):
    """Run `forebay serve ARGUMENTS`; kill it if it still runs at the end of the block."""
    command = [sys.executable, "-m", "forebay_server.service", "serve", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    running = Served(process)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(HANG_GUARD_S)
            except subprocess.TimeoutExpired:
                process.kill()
        running.wait()
        for pipe in (process.stdout, process.stderr):
            pipe.close()
