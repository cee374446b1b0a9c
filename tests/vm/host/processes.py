"""The processes of a run: started, logged, waited for, and never left behind."""

import os
import signal
import subprocess
import threading
import time


class ProcessError(Exception):
    """A process did not do what it is there for."""


class Processes:
    """All processes of a run. Leaving the block ends them, by their IDs, in the opposite order of their start."""

    def __init__(self, logs):
        self.logs = logs
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            process.end()

    def start(self, name, *command):
        process = Process(name, self.logs, [str(word) for word in command])
        self.running.append(process)
        return process


class Process:
    """A process with standard input and output to talk over; all that it writes is kept in NAME.log."""

    def __init__(self, name, logs, command):
        self.name = name
        self.lines = []
        self.news = threading.Condition()
        self.log = open(logs / f"{name}.log", "wb")
        try:
            # A session of its own: Ctrl-C is for this program, which ends the processes itself.
            self.child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, start_new_session=True
            )
        except OSError as error:
            self.log.close()
            raise ProcessError(f"{name} cannot be started: {error}") from error
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.log.write(line)
            self.log.flush()
            with self.news:
                self.lines.append(line.decode(errors="replace").rstrip())
                self.news.notify_all()
        with self.news:
            self.lines.append(None)
            self.news.notify_all()

    def say(self, line):
        """Writes a line to its standard input."""
        try:
            self.child.stdin.write(line.encode() + b"\n")
            self.child.stdin.flush()
        except OSError as error:
            raise ProcessError(f"{self.name} does not listen: {error}") from error

    def wait_line(self, *prefixes, within):
        """The first line from now on that begins with one of the prefixes."""
        return self.wait(lambda line: line.startswith(prefixes), "say " + " or ".join(map(repr, prefixes)), within)

    def wait(self, wanted, what, within):
        """The first line from now on that is wanted; the ones before it are passed over."""
        until = time.monotonic() + within
        with self.news:
            while True:
                while self.lines and self.lines[0] is not None:
                    line = self.lines.pop(0)
                    if wanted(line):
                        return line
                if self.lines:
                    raise ProcessError(f"{self.name} ended before it did {what}; see {self.name}.log")
                if not self.news.wait(until - time.monotonic()):
                    raise ProcessError(f"{self.name} did not {what} within {within} s")

    def wait_end(self, within):
        """Its exit code."""
        try:
            return self.child.wait(within)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{self.name} did not end within {within} s") from error

    def kill(self):
        """Ends it at once, as if it had died."""
        self.child.kill()
        self.child.wait()

    def end(self, respite=5):
        """Ends it: asked first, then forced."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.child.poll() is not None:
                break
            os.kill(self.child.pid, number)
            try:
                self.child.wait(respite)
            except subprocess.TimeoutExpired:
                continue
        self.reader.join(1)
        self.log.close()
