"""Chromium, in two ways: it prints the elements of a page and ends, or it is driven through chromedriver. Both write down each
address that was asked for."""

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--enable-precise-memory-info",
    # What the browser wants for itself does not leave the host.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
EMPTY = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Element:
    def __init__(self, name, attributes):
        self.name, self.attributes, self.text = name, dict(attributes), ""

    def __getitem__(self, name):
        return self.attributes.get(f"data-{name}")


class Elements(HTMLParser):
    """The elements of a printed page, each with its attributes and the text inside."""

    def __init__(self, text):
        super().__init__()
        self.all, self.open = [], []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        element = Element(name, attributes)
        self.all.append(element)
        if name not in EMPTY:
            self.open.append(element)

    def handle_endtag(self, name):
        while self.open and self.open.pop().name != name:
            pass

    def handle_data(self, text):
        if not any(it.name in ("script", "style") for it in self.open):
            for it in self.open:
                it.text += text

    def find(self, **wanted):
        """Elements with these data- attributes; None: whatever its value."""
        return [
            it
            for it in self.all
            if all(it[key] is not None and value in (None, it[key]) for key, value in wanted.items())
        ]

    def by_id(self, name):
        return next(it for it in self.all if it.attributes.get("id") == name)


def asked_for(log):
    """The addresses that pages asked for, in a log of the network. What the browser asks on its own has no origin."""
    text = Path(log).read_text(errors="replace").rstrip()
    text = text if text.endswith("}") else text.rstrip(",") + "]}"
    found = set()
    for event in json.loads(text)["events"]:
        given = event.get("params", {})
        if given.get("url") and given.get("initiator", "not an origin") != "not an origin":
            found.add(given["url"])
    return {url for url in found if not url.startswith(("file:", "data:"))}


def printed(address):
    """The elements of a page as Chromium shows it, and the addresses it asked for."""
    with tempfile.TemporaryDirectory() as folder:
        log = f"{folder}/net"
        command = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={folder}/user",
            f"--log-net-log={log}",
            "--virtual-time-budget=4000",
            "--dump-dom",
            address,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return Elements(done.stdout), asked_for(log)


class Browser:
    """A browser that is driven. Use it in a `with`."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        self.log = f"{self.folder.name}/net"
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait("chromedriver", lambda: self.reaches())
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS, f"--log-net-log={self.log}", f"--user-data-dir={self.folder.name}/user"],
        }
        wanted = {
            "browserName": "chrome",
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
        }
        self.session = f"/session/{self.call('POST', '/session', {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
        return self

    def __exit__(self, *_):
        self.close()
        self.driver.terminate()
        self.driver.wait()
        self.folder.cleanup()

    def close(self):
        """Ends the browser; then its log of the network is complete."""
        if self.session:
            self.call("DELETE", self.session)
            self.session = None

    def reaches(self):
        try:
            return self.call("GET", "/status")["ready"]
        except (urllib.error.URLError, ConnectionError):
            return False

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.base + path, data, {"Content-Type": "application/json"}, method=method
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def cdp(self, command, **params):
        return self.call("POST", f"{self.session}/goog/cdp/execute", {"cmd": command, "params": params})

    def look(self, width, height, dark):
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.cdp(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )

    def go(self, address):
        self.call("POST", f"{self.session}/url", {"url": address})

    def run(self, script, *arguments):
        return self.call("POST", f"{self.session}/execute/sync", {"script": script, "args": list(arguments)})

    def write(self, field, text):
        """Writes into a field, as a person would."""
        self.run(
            "const it = document.getElementById(arguments[0]); it.value = arguments[1]; "
            'it.dispatchEvent(new Event("input", {bubbles: true}))',
            field,
            text,
        )

    def leave(self, address):
        """Ends the browser. The page had no complaint, and asked only this address for anything."""
        complaints = self.complaints()
        self.close()
        asked = {url for url in asked_for(self.log) if not url.startswith(address)}
        assert not complaints, complaints
        assert not asked, f"the page asks for {asked}"

    def elements(self):
        return Elements(self.run("return document.documentElement.outerHTML"))

    def complaints(self):
        """What the page wrote to its console, but for answers that a check asks for."""
        lines = self.call("POST", f"{self.session}/se/log", {"type": "browser"})
        return [
            it["message"]
            for it in lines
            if it["level"] == "SEVERE" and "Failed to load resource" not in it["message"]
        ]

    def renderer_bytes(self):
        """The memory that is the page's process's own: of the largest one of this browser."""
        found = [0]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                command = (folder / "cmdline").read_text()
                if "--type=renderer" in command and self.folder.name in command:
                    lines = (folder / "status").read_text().splitlines()
                    found += [int(it.split()[1]) * 1024 for it in lines if it.startswith("RssAnon")]
            except OSError:
                continue
        return max(found)

    def shot(self, file):
        height = int(self.cdp("Page.getLayoutMetrics")["cssContentSize"]["height"])
        width = self.run("return innerWidth")
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        time.sleep(0.5)
        Path(file).write_bytes(base64.b64decode(self.cdp("Page.captureScreenshot", format="png")["data"]))


def wait(what, holds, seconds=10):
    """Waits until something holds, and fails with its name if it never does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = holds()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")
