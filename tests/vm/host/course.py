"""The host's part: the cards, the module at the other end of pair 1, its KMSs, and the answers to the guest."""

import json
import signal
import socket

from . import processes

KEYS_WITHIN_S = 60
END_WITHIN_S = 30
FAULT_WITHIN_S = 30
# Each KMS holds this many chunks before it is told to close.
CHUNKS = 200
# The README's configurations, which pair 2 is driven by first, take no test key.
KEY = {2: "random"}


def free_ports(count):
    """Ports that nobody has now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    numbers = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return numbers


def configuration(name, leads, card, api, peer, endpoint):
    """The configuration of one module."""
    own, other = ("kms://a", "kms://b") if leads else ("kms://b", "kms://a")
    plain = "10.0.2" in api + endpoint
    return f"""[module]
name = "{name}"
role = "{'leader' if leads else 'follower'}"
[card]
{card}
accept_test_key = true
# Emulated processors on a machine that does other things as well.
grace_ms = 20000
[api]
listen = "{api}"
[peer]
{peer}
silence_deadline_ms = 30000
kms = ["{other}"]
[[kms]]
uri = "{own}"
endpoint = "http://{endpoint}"
[transport]
plain_text_beyond_loopback_gives_keys_away = {'true' if plain else 'false'}
# Each page of secret memory costs an emulated processor milliseconds.
[vault]
bytes = 8388608
"""


class Course:
    """What runs on the host during a test."""

    PAIRS = 4

    def __init__(self, programs, running, directory, logs):
        self.programs, self.running, self.directory, self.logs = programs, running, directory, logs
        self.api, self.peer, self.api_b, self.kms_a, self.kms_b = free_ports(5)
        self.pairs = {}
        self.kms = []
        self.rounds = 0

    def socket(self, pair, end):
        return self.directory / f"{pair}{end}"

    def serial(self, pair, end):
        return 0x5144_0000_0000_0000 + 0x100 * pair + "ab".index(end) + 1

    def start(self):
        """Starts the simulators and the module at the far end of pair 1."""
        for pair in range(1, self.PAIRS + 1):
            state = self.directory / f"state{pair}.toml"
            ends = (f"[{end}]\nserial = {self.serial(pair, end)}\nsession_counter = 1\ncell = 0\n" for end in "ab")
            state.write_text("".join(ends))
            self.pairs[str(pair)] = self.running.start(
                f"pair{pair}", self.programs / "qkd-sim", "pair", "--key", KEY.get(pair, "positional"), "--weather", "calm",
                "--socket-a", self.socket(pair, "a"), "--socket-b", self.socket(pair, "b"),
                "--state-file", state, "--faults-from", "-", "--no-error-interrupt",
            )
        for pair in self.pairs.values():
            pair.wait_line("ready", within=10)
        config = self.directory / "b.toml"
        config.write_text(configuration(
            "B", False, f'socket = "{self.socket(1, "b")}"', f"127.0.0.1:{self.api_b}",
            f'connect = "127.0.0.1:{self.peer}"', f"127.0.0.1:{self.kms_b}",
        ) + f'[ledger]\ndirectory = "{self.directory / "ledger-b"}"\n')
        self.running.start("module-b", self.programs / "qkdd", "--config", config).wait_line("ready", within=30)

    def answer(self, request):
        """Does what the guest asks for, and answers `done…` or `refused: why`."""
        words = request.split()
        try:
            match words:
                case ["fault", pair, *fault] if pair in self.pairs:
                    return self.fault(self.pairs[pair], " ".join(fault))
                case ["keys", "begin"]:
                    return self.keys_begin()
                case ["keys", "end"]:
                    return self.keys_end()
                case ["end", pair] if pair in self.pairs:
                    self.pairs[pair].kill()
                    return "done"
                case ["finished"]:
                    return "done"
                case _:
                    return "refused: there is no such request"
        except (processes.ProcessError, ValueError) as error:
            return f"refused: {error}"

    def fault(self, pair, words):
        pair.say(words)
        answer = pair.wait_line("fault done", "fault refused", within=FAULT_WITHIN_S)
        return "done" if answer.startswith("fault done") else answer.removeprefix("fault ")

    def keys_begin(self):
        """A KMS at each end of pair 1, and key at both."""
        self.rounds += 1
        ids = self.directory / f"ids{self.rounds}"
        ends = (
            ("a", self.api, self.kms_a, ("--source", "kms://a", "--destination", "kms://b", "--open", "--ids-out", ids)),
            ("b", self.api_b, self.kms_b, ("--source", "kms://a", "--destination", "kms://b", "--join-from", ids)),
        )
        self.kms = [
            self.running.start(
                f"kms-{end}-{self.rounds}", self.programs / "qkd-sim", "kms", "--module", f"http://127.0.0.1:{module}",
                "--listen", f"127.0.0.1:{listen}", *part, "--key", "positional", "--json",
                "--history", self.history(end),
            )
            for end, module, listen, part in ends
        ]
        for kms in self.kms:
            kms.wait(has_chunks, f"get {CHUNKS} chunks of key", KEYS_WITHIN_S)
        return "done"

    def history(self, end):
        return self.logs / f"history-{end}-{self.rounds}.jsonl"

    def keys_end(self):
        """Both KMSs close, and their histories are held against each other."""
        if not self.kms:
            return "refused: no KMS has begun"
        for kms in self.kms:
            kms.child.send_signal(signal.SIGTERM)
        codes = [kms.wait_end(END_WITHIN_S) for kms in self.kms]
        self.kms = []
        if codes != [0, 0]:
            return f"refused: the KMSs ended with {codes}, see their logs"
        check = self.running.start(
            f"check-{self.rounds}", self.programs / "qkd-sim", "check", self.history("a"), self.history("b")
        )
        code = check.wait_end(END_WITHIN_S)
        return "done" if code == 0 else f"refused: qkd-sim check ended with {code}, see its log"


def has_chunks(line):
    """Whether a KMS's line says that enough key has come."""
    try:
        status = json.loads(line)
    except ValueError:
        return False
    return isinstance(status, dict) and status.get("chunks", 0) >= CHUNKS
