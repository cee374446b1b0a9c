"""Opens a page in Chromium and says how it was had, as one JSON line: its HTTP status and text, the TLS version and the key
exchange that were agreed, or the error. Python's standard library only; Chromium is spoken to through two pipes.

usage: browser.py URL AUTHORITY.pem [CERTIFICATE.pem KEY.pem]"""

import base64
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

WITHIN_S = 100


def in_own_mounts():
    """Runs this program again where what it mounts is seen by nobody else."""
    flags = ["--mount"] if os.geteuid() == 0 else ["--mount", "--map-root-user"]
    os.execvp("unshare", ["unshare", *flags, sys.executable, os.path.abspath(__file__), "--mounted", *sys.argv[1:]])


def run(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def certificates(home, authority, own):
    """Gives this user of Chromium an authority to trust, and a certificate to show."""
    store = home / ".pki/nssdb"
    store.mkdir(parents=True)
    run("certutil", "-N", "-d", f"sql:{store}", "--empty-password")
    run("certutil", "-A", "-d", f"sql:{store}", "-n", "authority", "-t", "C,,", "-i", authority)
    if own:
        bundle = home / "own.p12"
        run("openssl", "pkcs12", "-export", "-in", own[0], "-inkey", own[1], "-out", bundle, "-passout", "pass:")
        run("pk12util", "-d", f"sql:{store}", "-i", bundle, "-W", "", "-K", "")


def policy(home, url):
    """Has Chromium show its certificate without asking: a policy, and policies are read from one place only."""
    folder = home / "chromium/policies/managed"
    folder.mkdir(parents=True)
    choice = {"pattern": url, "filter": {}}
    (folder / "certificate.json").write_text(json.dumps({"AutoSelectCertificateForUrls": [json.dumps(choice)]}))
    run("mount", "--bind", home / "chromium", "/etc/chromium")


class Chromium:
    """A Chromium without a window."""

    def __init__(self, home):
        to_browser, self.writer = os.pipe()
        self.reader, from_browser = os.pipe()

        def pipes():
            # First out of the way of the two numbers that Chromium expects.
            one, other = os.dup(to_browser), os.dup(from_browser)
            os.dup2(one, 3)
            os.dup2(other, 4)

        command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                   "--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={home / 'profile'}"]
        self.log = open(home / "log", "wb")
        self.child = subprocess.Popen(
            command, env={**os.environ, "HOME": str(home)}, preexec_fn=pipes, close_fds=False, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer = b""
        self.number = 0

    def end(self):
        try:
            os.killpg(self.child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.child.wait()

    def message(self):
        while b"\0" not in self.buffer:
            data = os.read(self.reader, 65536)
            if not data:
                raise EOFError("Chromium ended")
            self.buffer += data
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    def say(self, method, session=None, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        return self.number

    def ask(self, method, session=None, **parameters):
        number = self.say(method, session, **parameters)
        while True:
            answer = self.message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]


def visit(chromium, url):
    """What comes of opening the page."""
    target = chromium.ask("Target.createTarget", url="about:blank")["targetId"]
    page = chromium.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    chromium.ask("Network.enable", page)
    chromium.say("Page.navigate", page, url=url)
    asked = None
    while True:
        message = chromium.message()
        method, said = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent" and said.get("type") == "Document":
            asked = said["requestId"]
        elif method == "Network.responseReceived" and said["requestId"] == asked:
            response = said["response"]
            tls = response.get("securityDetails", {})
            outcome = {
                "status": response["status"],
                "protocol": tls.get("protocol"),
                "key_exchange": tls.get("keyExchangeGroup") or tls.get("keyExchange"),
            }
        elif method == "Network.loadingFinished" and said["requestId"] == asked:
            body = chromium.ask("Network.getResponseBody", page, requestId=asked)
            text = body["body"]
            outcome["text"] = base64.b64decode(text).decode() if body["base64Encoded"] else text
            return outcome
        elif method == "Network.loadingFailed" and said["requestId"] == asked:
            return {"error": said["errorText"]}


def main(url, authority, own):
    home = pathlib.Path(tempfile.mkdtemp(prefix="qkd-browser-"))
    chromium = None
    try:
        certificates(home, authority, own)
        policy(home, url)
        chromium = Chromium(home)
        # Whatever Chromium waits for, its end is noticed.
        watchdog = threading.Timer(WITHIN_S, chromium.end)
        watchdog.daemon = True
        watchdog.start()
        try:
            print(json.dumps(visit(chromium, url)), flush=True)
        except EOFError:
            sys.exit(f"Chromium ended or did not answer within {WITHIN_S} s:\n" + (home / "log").read_text()[-2000:])
    finally:
        if chromium:
            chromium.end()
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] != "--mounted":
        in_own_mounts()
    main(sys.argv[2], sys.argv[3], sys.argv[4:6])
