"""What was expected, what was reported, and the judgement."""

import pathlib

EXPECTED = pathlib.Path(__file__).resolve().parent.parent / "expected" / "checks.txt"


class Results:
    """The checks of a run. What is expected is known before anything runs, and does not come from the guest."""

    def __init__(self, scenarios):
        lines = EXPECTED.read_text().splitlines()
        names = [line.split("#")[0].strip() for line in lines]
        self.expected = [name for name in names if name] + [f"scenario {name}" for name in scenarios]
        if len(set(self.expected)) != len(self.expected):
            raise ValueError(f"{EXPECTED.name} or card-scenarios --list names a check twice")
        self.passed = []
        self.failed = []

    def take(self, line):
        """A line `PASS name` or `FAIL name: why`."""
        verdict, _, rest = line.partition(" ")
        # Names have colons of their own.
        known = [name for name in self.expected if rest == name or rest.startswith(name + ": ")]
        name = max(known, key=len, default=rest)
        why = rest[len(name) + 2:] or "it gave no reason"
        if name not in self.expected:
            self._fail(name, f"nobody expects this check ({line})")
        elif name in self.passed or name in [failed for failed, _ in self.failed]:
            self._fail(name, f"it reported twice ({line})")
        elif verdict == "PASS":
            self.passed.append(name)
            print(f"PASS {name}", flush=True)
        else:
            self._fail(name, why)

    def _fail(self, name, why):
        self.failed.append((name, why))
        print(f"FAIL {name}: {why}", flush=True)

    def judge(self):
        """Fails what did not report, and prints the sum. True when all is good."""
        for name in self.expected:
            if name not in self.passed and name not in [failed for failed, _ in self.failed]:
                self._fail(name, "it did not report")
        print(f"{len(self.passed)} passed, {len(self.failed)} failed", flush=True)
        return bool(self.passed) and not self.failed
