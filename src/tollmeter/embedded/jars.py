"""Java, and the broker's jars: fetched once by Maven into the user's cache, whole or not at all."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

POM = Path(__file__).with_name("pom.xml")
_FETCH_TIMEOUT_S = 900


class EmbeddedError(Exception):
    """Something the user can mend: one line that says what is missing and both ways out."""


class MissingToolError(EmbeddedError):
    """Java or Maven is not installed."""

    def __init__(self, tool: str, package: str) -> None:
        super().__init__(
            f"{tool} was not found: install it (Debian: apt install {package}; macOS: brew install {tool.lower()}), "
            "or run the same stack in containers with `docker compose up`"
        )


def java(environment: Mapping[str, str] = os.environ) -> str:
    """Return the java command, JAVA_HOME first. Raises `MissingToolError`."""
    if home := environment.get("JAVA_HOME"):
        command = Path(home, "bin", "java")
        if os.access(command, os.X_OK):
            return str(command)
    # /usr/bin/java on macOS may be a stub that only opens a dialogue; `java -version` fails then, in the broker's log
    found = shutil.which("java", path=environment.get("PATH"))
    if found is None:
        raise MissingToolError("Java", "openjdk-17-jre-headless")
    return found


def cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of this pom's jars; another version of the pom has another folder."""
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".cache")
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    return Path(base, "tollmeter", f"jars-{digest}")


def fetch(environment: Mapping[str, str] = os.environ, note: Callable[[str], None] | None = None) -> Path:
    """Return the folder with all jars, fetching them the first time. Raises `EmbeddedError`.

    Two processes may call at once: one fetches, the other waits. The folder appears complete, by a rename.
    """
    target = cache_dir(environment)
    if target.is_dir():
        return target
    maven = shutil.which("mvn", path=environment.get("PATH"))
    if maven is None:
        raise MissingToolError("Maven", "maven")
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "jars.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            if note:
                note("fetching the Kafka broker (43 MB, once)")
            _fetch(maven, target, environment)
    return target


def _fetch(maven: str, target: Path, environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
        pom, jars = Path(folder, "pom.xml"), Path(folder, "jars")
        shutil.copyfile(POM, pom)  # Maven writes beside the pom, and the package may be read-only
        command = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        try:
            done = subprocess.run(
                command, env=dict(environment), capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired:
            raise EmbeddedError(f"Maven did not fetch the broker within {_FETCH_TIMEOUT_S} s: is it online?") from None
        if done.returncode != 0:
            reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), "see mvn's own output")
            raise EmbeddedError(
                f"Maven could not fetch the broker ({reason.strip()[:300]}): check the network or ~/.m2/settings.xml, "
                "or run the same stack in containers with `docker compose up`"
            )
        jars.rename(target)
