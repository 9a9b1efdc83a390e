"""Debian's Chromium without a screen, driven over a pipe by its own protocol: no driver, no library."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .programs import PATIENCE

# the browser reads from 3 and writes to 4
_START = "import os, sys; [os.dup2(int(sys.argv[n]), n + 2) for n in (1, 2)]; os.execv(sys.argv[3], sys.argv[3:])"
_HIGH = 20  # file descriptors from here on are in nobody's way


def unavailable() -> str | None:
    """Why there is no browser here; None if there is one."""
    return None if _program() else "there is no Chromium here (Debian: apt-get install chromium)"


def _program() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One tab. Keeps what the page says on its console, and its errors, in `complaints`."""

    def __init__(self, directory: Path, width: int = 1280, height: int = 900) -> None:
        (from_us, to_browser), (from_browser, to_us) = (self._pipe() for _ in range(2))
        self._process = subprocess.Popen(
            [
                sys.executable, "-c", _START, str(from_us), str(to_us), _program(), "--headless=new", "--no-sandbox", "--disable-gpu",
                "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking", "--hide-scrollbars",
                f"--user-data-dir={directory}", f"--window-size={width},{height}", "--remote-debugging-pipe",
            ],
            pass_fds=(from_us, to_us), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(from_us)
        os.close(to_us)
        self._to, self._from = to_browser, from_browser
        self._rest = b""
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self.complaints: list[str] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the protocol, and returns what comes of it."""
        number = next(self._numbers)
        command = {"id": number, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        os.write(self._to, json.dumps(command).encode() + b"\0")
        while (said := self._hear()).get("id") != number:
            self._note(said)
        assert "error" not in said, said["error"]
        return said["result"]

    def open(self, url: str) -> None:
        self("Page.navigate", url=url)

    def ask(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """What a reader sees of an element; nothing if it is not there."""
        return self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def until(self, condition: Callable[[], bool], patience: float = PATIENCE) -> None:
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, self.text("body")
            time.sleep(0.2)

    def look_like(self, width: int, height: int, dark: bool = False) -> None:
        """From now on the screen is so large."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path, height: int | None = None) -> None:
        """Of the whole page, or so much of it, as PNG."""
        size = self("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height or size["height"], "scale": 1}
        shot = self("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            assert select.select([self._from], [], [], PATIENCE)[0], "the browser does not answer"
            more = os.read(self._from, 1 << 20)
            assert more, f"the browser has ended with {self._process.wait()}"
            self._rest += more
        said, _, self._rest = self._rest.partition(b"\0")
        return json.loads(said)

    def _note(self, said: dict[str, Any]) -> None:
        if said.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
            self.complaints.append(json.dumps(said["params"]))

    @staticmethod
    def _pipe() -> tuple[int, int]:
        """Both ends, numbered so high that nothing else is moved onto them."""
        ends = os.pipe()
        moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _HIGH) for end in ends)
        for end in ends:
            os.close(end)
        return moved
