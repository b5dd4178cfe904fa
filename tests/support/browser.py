"""Chromium without a driver: the DevTools protocol over two pipes.

Not here: waiting for elements. `wait_for` asks the page until an expression is true, with a guard.
"""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import threading
from pathlib import Path

from tests.support.guard import HANG_GUARD_S

POLL_S = 0.05
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # a container's root has no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def find_chromium():
    """The browser's path, or None."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One browser with one page. Blocks; not for an event loop's thread."""

    def __init__(self, folder):
        self._ids = itertools.count(1)
        self._events = []
        self._rest = b""
        command_read, self._write_fd = os.pipe()
        self._read_fd, answer_write = os.pipe()
        shell = f'exec "$0" "$@" 3<&{command_read} 4>&{answer_write}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", shell, find_chromium(), *FLAGS, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(command_read, answer_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(answer_write)
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target for target in targets if target["type"] == "page")
        self._session = None
        self._session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """Send a command and return its result."""
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        if getattr(self, "_session", None) is not None:
            message["sessionId"] = self._session
        os.write(self._write_fd, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != number:
            self._events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self._rest:
            assert select.select([self._read_fd], [], [], HANG_GUARD_S)[0], "the browser hangs"
            data = os.read(self._read_fd, 1 << 20)
            assert data, "the browser has gone"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, url):
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression):
        """The value of a JavaScript expression."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, expression, guard_s=HANG_GUARD_S):
        """Ask until the expression is true."""
        waiting = threading.Event()
        for _ in range(int(guard_s / POLL_S)):
            if self.evaluate(f"Boolean({expression})"):
                return
            waiting.wait(POLL_S)
        raise AssertionError(f"never true: {expression}; the page says {self.evaluate('document.body.innerText')!r}")

    def look(self, width, height, scheme="light"):
        """Set the size of the window, and light or dark."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key, text=None):
        text = key if text is None and len(key) == 1 else text
        down = {"type": "keyDown", "key": key} | ({"text": text} if text else {})
        if key in ("Enter", "Tab"):
            down |= {"windowsVirtualKeyCode": {"Enter": 13, "Tab": 9}[key]}
        self.send("Input.dispatchKeyEvent", **down)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def screenshot(self, path):
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=False)["data"]
        Path(path).write_bytes(base64.b64decode(data))

    def complaints(self):
        """Errors that the page or the browser logged: exceptions, refused scripts and styles."""
        self.evaluate("0")
        found = []
        for event in self._events:
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(event["params"]["exceptionDetails"]["text"])
            if event.get("method") == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
                found.append(event["params"]["entry"]["text"])
        return found

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._write_fd)
        os.close(self._read_fd)
