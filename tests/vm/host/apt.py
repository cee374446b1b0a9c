"""Debian packages of a release that is not this machine's, from the mirror that this machine's apt uses."""

import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import time

RELEASE = "trixie"
SUITES = (RELEASE, RELEASE + "-backports")
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
LISTS_FRESH_FOR_S = 24 * 3600
DEADLINE_S = 600


class AptError(Exception):
    """Packages cannot be had; says why, and what helps."""


def mirror():
    """The mirror's address, without a slash at its end."""
    named = os.environ.get("QKD_VM_MIRROR")
    if named:
        return named.rstrip("/")
    shape = "$(CODENAME) $(REPO_URI)"
    targets = run("apt-get", "indextargets", "--format", shape, "Created-By: Packages", "Component: main")
    for codename, uri in sorted({tuple(line.split()) for line in targets.splitlines() if len(line.split()) == 2}):
        # A suite by its codename alone is the archive itself; its security and updates may lie on other hosts.
        if "-" not in codename and "/debian" in uri and "security" not in uri:
            return uri.rstrip("/")
    raise AptError("this machine's apt knows no Debian mirror: set QKD_VM_MIRROR to the address of one")


class Apt:
    """An apt of its own beneath a directory, which knows the suites and no installed package."""

    def __init__(self, directory):
        self.directory = directory
        self.sources = directory / "sources.list"
        self.options = []

    def prepare(self):
        """Reads the suites' indices unless that was done within a day; an old index serves where the mirror does not."""
        if not os.path.exists(KEYRING):
            raise AptError(f"{KEYRING} is missing: install debian-archive-keyring")
        for part in ("lists/partial", "archives/partial", "state"):
            (self.directory / part).mkdir(parents=True, exist_ok=True)
        address = mirror()
        lines = "".join(f"deb [signed-by={KEYRING}] {address} {suite} main\n" for suite in SUITES)
        changed = not self.sources.exists() or self.sources.read_text() != lines
        # Both are left alone where nothing changes, so that apt takes its own cache for current.
        stamp = self.directory / "fresh"
        if changed:
            stamp.unlink(missing_ok=True)
            (self.directory / "status").touch()
            self.sources.write_text(lines)
        settings = {
            "Dir::Etc::SourceList": self.sources,
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State": self.directory / "state",
            "Dir::State::Lists": self.directory / "lists",
            "Dir::State::status": self.directory / "status",
            "Dir::Cache": self.directory,
            # Some machines switch it off, and then every call reads all indices anew.
            "Dir::Cache::pkgcache": "pkgcache.bin",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Install-Recommends": "false",
            # The directory may lie where apt's own user must not look.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        self.options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        fresh = stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_FRESH_FOR_S
        if not fresh:
            try:
                run("apt-get", *self.options, "--error-on=any", "update")
            except AptError as error:
                if not stamp.exists():
                    raise
                print(f"the package lists are old: {error}", flush=True)
            stamp.touch()

    def versions(self, *packages):
        """`name version` of the packages and of all that they need, in order."""
        # Seconds of apt's work, which come out the same until the indices are read again.
        kept = self.directory / f"plan-{key(*packages)}"
        stamp = self.directory / "fresh"
        if not kept.exists() or kept.stat().st_mtime < stamp.stat().st_mtime:
            kept.write_text(run("apt-get", *self.options, "--simulate", "install", *packages))
        plan = kept.read_text()
        found = re.findall(r"^Inst (\S+) \((\S+)", plan, re.MULTILINE)
        if not found:
            raise AptError(f"apt would install nothing for {' '.join(packages)}")
        return sorted(f"{name} {version}" for name, version in found)

    def depends(self, package):
        """The packages that a package needs directly."""
        return re.findall(r"^\s*Depends: (\S+)", run("apt-cache", *self.options, "depends", package), re.MULTILINE)

    def download(self, package, directory):
        """Fetches one package's file."""
        run("apt-get", *self.options, "download", package, cwd=directory)
        (file,) = pathlib.Path(directory).glob("*.deb")
        return file


def key(*parts):
    """A name that changes with any of the parts: texts, and files or folders by what is in them."""
    digest = hashlib.sha256()
    for part in parts:
        files = [part]
        if isinstance(part, pathlib.Path) and part.is_dir():
            files = sorted(file for file in part.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        for file in files:
            data = file.name.encode() + b"\0" + file.read_bytes() if isinstance(file, pathlib.Path) else file.encode()
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


def cached(cache, kind, name, build):
    """The directory `kind-name`, built by `build(directory)` aside if it is not there. Older ones of its kind go."""
    done = cache / f"{kind}-{name}"
    if done.is_dir():
        return done
    print(f"building {kind}", flush=True)
    aside = cache / f"{kind}-{name}.{os.getpid()}.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        build(aside)
        try:
            aside.rename(done)
        except OSError:
            # Somebody else has built the same meanwhile.
            if not done.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    for other in cache.glob(f"{kind}-*"):
        if other != done and not other.name.endswith(".part"):
            shutil.rmtree(other, ignore_errors=True)
    return done


def run(*command, cwd=None):
    """Standard output of a program that must succeed."""
    try:
        done = subprocess.run(
            [str(word) for word in command], cwd=cwd, text=True, errors="replace", timeout=DEADLINE_S,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False,
        )
    except FileNotFoundError as error:
        raise AptError(f"{command[0]} is missing: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise AptError(f"{command[0]} did not end within {DEADLINE_S} s") from error
    if done.returncode != 0:
        last = "\n".join((done.stderr + done.stdout).strip().splitlines()[-12:])
        raise AptError(f"{command[0]} ended with {done.returncode}:\n{last}")
    return done.stdout
