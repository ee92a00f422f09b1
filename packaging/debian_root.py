"""Makes a bare Debian in a folder and runs commands in it, as root, with mmdebstrap and unshare.

A root is packed once into the user's cache and unpacked wherever a fresh one is needed. Every command runs in its own
mount and process namespaces. Afterwards nothing stays mounted and no process is left, even if this process is killed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "acap-runtime" / "roots"
SUITES = {
    "debian12": "bookworm",
    "debian13": "trixie",
    "debian-testing": "testing",
    "debian-unstable": "sid",
}
MOVING = frozenset(("debian-testing", "debian-unstable"))
OLD_S = 24 * 3600.0
"""A root of a release that moves is made anew after a day."""
PACKAGES = ("python3", "git", "ca-certificates", "procps")
TOOLS = ("mmdebstrap", "unshare", "pivot_root", "mount")
PASSED_ON = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "SSL_CERT_FILE", "UV_INDEX_URL", "UV_DEFAULT_INDEX")
"""The variables for reaching package indexes. A fresh machine on the same network needs the same values."""
PREFIXES_PASSED_ON = ("OPENBLAS_",)
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
_NO_EXPIRY = 'Acquire::Check-Valid-Until "false";'
_SCRIPT = """
set -e
root=$1; shift
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
while [ "$1" != -- ]; do
    mount --bind "$1" "$root$2"
    mount -o remount,bind,ro "$root$2"
    shift 2
done
shift
cd "$root"
pivot_root . .
umount --lazy .
exec "$@"
"""


class RootError(Exception):
    """A root cannot be made or used here. The message says what to do."""


def missing() -> str | None:
    """Return the reason why no root can be made or entered here, or None."""
    if os.geteuid() != 0:
        return "expected root, which mount needs"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"expected {', '.join(absent)} on PATH; on Debian: apt-get install mmdebstrap util-linux"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        return "expected the right to make mount namespaces, which this container does not have"
    return None


@dataclass(frozen=True)
class Root:
    """A Debian in `folder`."""

    folder: Path

    def command(self, *words: object, shown: Mapping[Path, str] | None = None) -> list[str]:
        """Return the command line that runs `words` in the root, for a process with `environment`.

        `shown` maps folders and files of this machine to the absolute paths in the root where they can be read.
        """
        mounts = []
        for source, target in (shown or {}).items():
            place = self.folder / target.lstrip("/")
            if source.is_dir():
                place.mkdir(parents=True, exist_ok=True)
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.touch()
            mounts += [str(source.resolve()), target]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        return [*namespaces, "sh", "-c", _SCRIPT, "sh", str(self.folder), *mounts, "--", *map(str, words)]

    def run(self, *words: object, shown: Mapping[Path, str] | None = None) -> str:
        """Run a command to its end. Returns its output; raises `RootError` with the end of it if that fails."""
        command = self.command(*words, shown=shown)
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            said = f"{done.stdout}\n{done.stderr}"[-4000:]
            raise RootError(f"{' '.join(map(str, words))}: exit code {done.returncode} in {self.folder}\n{said}")
        return done.stdout.strip()


def environment() -> dict[str, str]:
    """Return the environment of commands in a root. It goes by `env`, since anyone can read a command line."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.lower().endswith("_proxy") or name.startswith(PREFIXES_PASSED_ON)
    }
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"HOME": "/root", "PATH": path, "LANG": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", **passed_on}


def packed(name: str, mirror: str | None = None) -> Path:
    """Return the archive of a bare root, and make it if the cache does not have it. Raises `RootError`."""
    if problem := missing():
        raise RootError(problem)
    archive = CACHE / f"{name}.tar"
    if archive.exists() and not (name in MOVING and time.time() - archive.stat().st_mtime > OLD_S):
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    print(f"making the root of {name} (a minute, once)", file=sys.stderr, flush=True)
    partial = archive.with_name(f"{name}.{os.getpid()}.partial.tar")
    command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    # Package lists of a frozen mirror or of unreleased Debian have often passed their own expiry date.
    command += [f"--aptopt={_NO_EXPIRY}"]
    command += [SUITES[name], str(partial), *([mirror] if mirror else [])]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise RootError(f"mmdebstrap could not make {name}:\n{done.stdout[-4000:]}")
        partial.rename(archive)
    finally:
        partial.unlink(missing_ok=True)
    return archive


def unpack(name: str, folder: Path, mirror: str | None = None) -> Root:
    """Unpack a fresh root into an empty folder, with this machine's names, name servers and certificates."""
    archive = packed(name, mirror)
    folder.mkdir(parents=True, exist_ok=True)
    # Device nodes come with /dev, and a container is not allowed to make them.
    into = ["--file", str(archive), "--directory", str(folder)]
    subprocess.run(["tar", "--extract", *into, "--exclude=./dev/*", "--numeric-owner"], check=True)
    for path in ("etc/hosts", "etc/resolv.conf", CERTIFICATES):
        source, target = Path("/") / path, folder / path
        if source.exists():
            target.unlink(missing_ok=True)
            shutil.copyfile(source, target)
    (folder / "etc" / "apt" / "apt.conf.d" / "99no-expiry").write_text(f"{_NO_EXPIRY}\n")
    return Root(folder)


def apt_install(root: Root, packages: Sequence[str]) -> None:
    """Install Debian packages in a root."""
    root.run("apt-get", "-qq", "update")
    root.run("apt-get", "-qq", "install", "--no-install-recommends", *packages)
