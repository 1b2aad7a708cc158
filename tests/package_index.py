"""A package index on loopback with the names, versions and needs of a lock: its wheels hold hardly any code.

Extras and needs are those of the installed distributions; only what is named in `whole` keeps its files, too.
"""

import base64
import functools
import hashlib
import re
import threading
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from email.parser import HeaderParser
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from packaging.markers import Marker
from packaging.utils import canonicalize_name
from packaging.version import Version

ENTRY = re.compile(
    r"^(?P<name>[a-z0-9][a-z0-9.-]*)==(?P<version>\S+)(?: ; (?P<marker>.+?))? \\\n(?: +--hash=\S+(?: \\)?\n)+",
    re.MULTILINE,
)
"""One package of a lock file as `make lock` writes it."""
NO_WHEEL = "0" * 64


class Entry:
    """One package of a lock; `here` says whether its marker holds on this machine."""

    def __init__(self, found: re.Match[str]) -> None:
        self.name, self.version, self.marker = found["name"], found["version"], found["marker"]
        self.here = self.marker is None or Marker(self.marker).evaluate()


def entries(lock: str) -> list[Entry]:
    """Return the packages of a lock file's text, in its order."""
    return [Entry(found) for found in ENTRY.finditer(lock)]


def _write(folder: Path, name: str, version: str, tag: str, files: dict[str, bytes]) -> Path:
    """Write a wheel with a right RECORD and return its path."""
    info, rows = _info(name, version), []
    path = folder / f"{info.removesuffix('.dist-info')}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, content in files.items():
            archive.writestr(zipfile.ZipInfo(inside), content)  # without a date: the same files, the same hash
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{inside},sha256={digest},{len(content)}")
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "\n".join([*rows, f"{info}/RECORD,,", ""]))
    return path


def _info(name: str, version: str) -> str:
    return f"{name.replace('-', '_').replace('.', '_')}-{version}.dist-info"


def hollow(folder: Path, name: str, version: str, like: Distribution) -> Path:
    """Write a wheel with no code that has the extras and needs of `like`, and return its path."""
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    kept = ("Provides-Extra", "Requires-Dist")
    lines += [f"{key}: {value}" for key in kept for value in like.metadata.get_all(key) or ()]
    metadata = "\n".join([*lines, "", ""])
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    info = _info(name, version)
    return _write(
        folder, name, version, "py3-none-any", {f"{info}/METADATA": metadata.encode(), f"{info}/WHEEL": wheel.encode()}
    )


def repacked(folder: Path, installed: Distribution) -> Path:
    """Write the wheel that `installed` came from, without its scripts and caches, and return its path."""
    name, version = canonicalize_name(installed.metadata["Name"]), installed.version
    files: dict[str, bytes] = {}
    for file in installed.files or ():
        path = PurePosixPath(file.as_posix())
        if path.parts[0] == ".." or "__pycache__" in path.parts or path.name in ("RECORD", "INSTALLER", "REQUESTED"):
            continue
        top = _info(name, version) if path.parts[0].endswith(".dist-info") else path.parts[0]
        files[str(PurePosixPath(top, *path.parts[1:]))] = Path(str(installed.locate_file(file))).read_bytes()
    tags = HeaderParser().parsestr(installed.read_text("WHEEL") or "").get_all("Tag", [])
    parts = zip(*(tag.split("-") for tag in tags), strict=True)  # py2-none-any and py3-none-any are py2.py3-none-any
    return _write(folder, name, version, "-".join(".".join(dict.fromkeys(part)) for part in parts), files)


def newer(lock: str, folder: Path) -> None:
    """Write a newer release of every package of `lock` that belongs on this machine; ranges that held, still do."""
    for entry in entries(lock):
        if entry.here:
            hollow(folder, entry.name, f"{entry.version}.post1", distribution(entry.name))


def wheels_of(lock: str, folder: Path, whole: Collection[str] = ()) -> str:
    """Write a wheel for every package of `lock` that belongs on this machine; return the lock with their hashes.

    Raises `PackageNotFoundError` where the running environment is not the lock's.
    """
    digests: dict[tuple[str, str], str] = {}
    for entry in entries(lock):
        if entry.here:
            installed = distribution(entry.name)
            if Version(installed.version) != Version(entry.version):  # `v0.0.21` is 0.0.21
                raise PackageNotFoundError(f"{entry.name}=={entry.version}: {installed.version} is installed")
            if entry.name in whole:
                path = repacked(folder, installed)
            else:
                path = hollow(folder, entry.name, entry.version, installed)
            digests[entry.name, entry.version] = hashlib.sha256(path.read_bytes()).hexdigest()

    def hashed(found: re.Match[str]) -> str:
        entry = Entry(found)
        digest = digests.get((entry.name, entry.version), NO_WHEEL)
        return f"{found[0].partition(chr(10))[0]}\n    --hash=sha256:{digest}\n"

    return ENTRY.sub(hashed, lock)


class _Pages(BaseHTTPRequestHandler):
    """The simple API: a page a project with links to its files, and the files."""

    def __init__(self, folders: Sequence[Path], *arguments: object) -> None:
        self.files = {path.name: path for folder in folders for path in folder.iterdir()}
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        kind, _, name = self.path.strip("/").partition("/")
        if kind == "files" and name in self.files:
            return self._answer("application/octet-stream", self.files[name].read_bytes())
        names = sorted(file for file in self.files if canonicalize_name(file.partition("-")[0]) == name)
        if kind != "simple" or not names:
            return self.send_error(404)
        links = "".join(f'<a href="/files/{escape(file)}">{escape(file)}</a>\n' for file in names)
        return self._answer("text/html", f"<!DOCTYPE html><html><body>\n{links}</body></html>\n".encode())

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: pip's own output is what a failure shows."""


@contextmanager
def serving(*folders: Path) -> Iterator[str]:
    """Serve the wheels in `folders`; yield the address for `PIP_INDEX_URL`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Pages, folders))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/simple/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
