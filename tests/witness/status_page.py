"""Shows the status page in Chromium and reports, once a second as a JSON line, what its plots show last, beside what /metrics
says before and after that. Ends when standard input ends, and then says what the page asked of other hosts and what it complained
of.

usage: status_page.py URL [SCREENSHOT.png light|dark]"""

import base64
import json
import pathlib
import re
import select
import shutil
import sys
import tempfile
import threading
import urllib.request

from browser import Chromium

WITHIN_S = 170

LAST = """JSON.stringify({
    points: qkdPlots.rate.data[0].length,
    at: qkdPlots.rate.data[0].at(-1) ?? null,
    rate: qkdPlots.rate.data[1].at(-1) ?? null,
    qber: qkdPlots.qber.data[1].at(-1) ?? null,
    drawn: [...document.querySelectorAll(".plots canvas")].every((canvas) => {
        const empty = document.createElement("canvas");
        [empty.width, empty.height] = [canvas.width, canvas.height];
        return canvas.width > 100 && canvas.toDataURL() !== empty.toDataURL();
    }),
    state: document.getElementById("state").textContent,
    streams: document.getElementById("streams").rows.length,
    events: document.getElementById("events").rows.length,
    back: getComputedStyle(document.body).backgroundColor,
})"""


# Whatever proxy the environment names is not for this host.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def metrics(url):
    text = OPENER.open(url + "metrics", timeout=20).read().decode()
    value = lambda name: next((float(v) for v in re.findall(rf"^{name} (\S+)$", text, re.M)), None)
    return {"rate": value("qkd_secret_key_rate_bytes_per_second"), "qber": value("qkd_qber_ratio")}


class Page:
    def __init__(self, chromium, url, scheme):
        self.chromium = chromium
        self.asked, self.complaints = [], []
        target = chromium.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = chromium.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Network", "Runtime", "Log", "Page"]:
            self.ask(f"{domain}.enable")
        self.ask("Emulation.setDeviceMetricsOverride", width=1200, height=900, deviceScaleFactor=1, mobile=False)
        if scheme:
            self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.ask("Page.navigate", url=url)

    def ask(self, method, **parameters):
        number = self.chromium.say(method, self.session, **parameters)
        while True:
            message = self.chromium.message()
            self.hear(message)
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def hear(self, message):
        method, said = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(said["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(said["exceptionDetails"].get("text", "") + str(said["exceptionDetails"].get("exception")))
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(said["args"]))
        elif method == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{said['entry'].get('text')} {said['entry'].get('url')}")

    def last(self):
        said = self.ask("Runtime.evaluate", expression=LAST)["result"]
        return json.loads(said["value"]) if "value" in said else None


def main(url, screenshot, scheme):
    home = pathlib.Path(tempfile.mkdtemp(prefix="qkd-page-"))
    chromium = Chromium(home)
    # Whatever Chromium waits for, its end is noticed.
    watchdog = threading.Timer(WITHIN_S, chromium.end)
    watchdog.daemon = True
    watchdog.start()
    try:
        page = Page(chromium, url, scheme)
        while not select.select([sys.stdin], [], [], 1.0)[0]:
            before = metrics(url)
            shown = page.last()
            print(json.dumps({"before": before, "shown": shown, "after": metrics(url)}), flush=True)
        if screenshot:
            image = page.ask("Page.captureScreenshot", format="png")["data"]
            pathlib.Path(screenshot).write_bytes(base64.b64decode(image))
        off = [asked for asked in page.asked if not asked.startswith(url)]
        print(json.dumps({"asked": len(page.asked), "off_host": off, "complaints": page.complaints}), flush=True)
    except EOFError:
        sys.exit(f"Chromium ended or did not answer within {WITHIN_S} s:\n" + (home / "log").read_text()[-2000:])
    finally:
        chromium.end()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], *(sys.argv[2:4] or [None, None]))
