"""A real browser for tests: Debian's headless Chromium, by the WebDriver protocol of chromedriver.

The protocol is JSON over HTTP, so that nothing has to be installed from PyPI for it. Its commands
are at https://www.w3.org/TR/webdriver2/#endpoints; ``goog/cdp`` is chromedriver's own.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
INSTALLED = CHROMIUM is not None and DRIVER is not None

_SWITCHES = (
    "headless",
    "no-sandbox",  # which Chromium cannot have as root
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
    "disable-component-update",
    "disable-sync",
    "disable-dev-shm-usage",
    "hide-scrollbars",
    "force-color-profile=srgb",
)

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""By which an element is known in the protocol."""

KEYS = {"Enter": "\ue007", "Escape": "\ue00c", "Left": "\ue012", "Up": "\ue013"}
KEYS |= {"Tab": "\ue004", "Right": "\ue014", "Down": "\ue015", "End": "\ue010", "Home": "\ue011"}


class Browser:
    """One window."""

    def __init__(self, url, session):
        self._url = f"{url}/session/{session}"

    def call(self, method, path, **body):
        """Give a command, and return what it answers."""
        return _call(method, f"{self._url}/{path}", body if method == "POST" else None)

    def devtools(self, command, **parameters):
        """Give a command of the DevTools protocol."""
        return self.call("POST", "goog/cdp/execute", cmd=command, params=parameters)

    def show(self, width=1280, height=800, scheme="light"):
        """Make the window as large as that, for a reader who prefers a light or dark page."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        preference = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", features=[preference])

    def open(self, file):
        """Open ``file`` from disk."""
        self.call("POST", "url", url=Path(file).as_uri())

    def run(self, script, *arguments):
        """Return what ``script`` returns in the page."""
        return self.call("POST", "execute/sync", script=script, args=list(arguments))

    def wait_for(self, script, *arguments, seconds=20):
        """Return what ``script`` returns as soon as that is true."""
        end = time.monotonic() + seconds
        while not (value := self.run(script, *arguments)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.03)
        return value

    def click(self, selector):
        """Click the middle of what ``selector`` finds first, as the mouse does."""
        found = self.call("POST", "element", using="css selector", value=selector)
        self.call("POST", f"element/{found[ELEMENT]}/click")

    def press(self, *keys):
        """Press and let go of one key after the other."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self.call("POST", "actions", actions=[{"type": "key", "id": "keys", "actions": actions}])

    def write(self, selector, text):
        """Write ``text`` into what ``selector`` finds."""
        self.click(selector)
        self.press(*text)

    def press_at(self, x, y):
        """Click at a place of the window."""
        self._move_mouse(
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        )

    def drag(self, x0, x1, y):
        """Press the mouse's button at one place, move it and let go."""
        self._move_mouse(
            {"type": "pointerMove", "x": x0, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "x": (x0 + x1) // 2, "y": y},
            {"type": "pointerMove", "x": x1, "y": y},
            {"type": "pointerUp", "button": 0},
        )

    def _move_mouse(self, *moves):
        mouse = {"type": "pointer", "id": "mouse", "actions": moves}
        self.call("POST", "actions", actions=[mouse])

    def screenshot(self):
        """Return the window as PNG."""
        return base64.b64decode(self.call("GET", "screenshot"))

    def complaints(self):
        """Return what the console has been told since the last time."""
        entries = self.call("POST", "se/log", type="browser")
        return [entry["message"] for entry in entries]


@contextlib.contextmanager
def browser():
    """Start a browser with an empty profile, and end it."""
    assert INSTALLED, "Debian's packages chromium and chromium-driver are not installed"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, _driver() as url:
        arguments = [*_SWITCHES, f"user-data-dir={profile}"]
        options = {"binary": CHROMIUM, "args": arguments}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = _call("POST", f"{url}/session", {"capabilities": {"alwaysMatch": wanted}})
        window = Browser(url, answer["sessionId"])
        try:
            yield window
        finally:
            _call("DELETE", window._url)


@contextlib.contextmanager
def _driver():
    process = subprocess.Popen(
        [DRIVER, "--port=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        env={key: value for key, value in os.environ.items() if not key.endswith("_proxy")},
    )
    try:
        for line in process.stdout:
            if port := re.search(r"started successfully on port (\d+)", line):
                break
        yield f"http://127.0.0.1:{port[1]}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=90) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(json.load(error)["value"]["message"]) from None
