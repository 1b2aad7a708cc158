"""Files of days in a bucket of a real S3 server, and in a folder: whole, once, and secrets nowhere."""

import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.session
import pytest

from tests import environments
from tollmeter.admin.day_store import Bucket, DayStoreError, Folder, day_store

SECRET = "canary/secret+of/a/bucket"
TEXTS = ["day,cost\n", "2026-11-20,0.5\n", "ünïcode,1\n"]


@pytest.fixture(scope="module", name="server")
def s3_server() -> Iterator[str]:
    """A server that speaks S3, from an environment of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.Popen(
        [environments.python("s3"), "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture(name="bucket")
def made_bucket(server: str, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]) -> str:
    """The bucket `reports` on the server, whose address and credentials stand in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIACANARY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)

    def made() -> bool:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{server}/reports", method="PUT"), timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    eventually(made, 60)
    return server


@pytest.mark.nightly
@pytest.mark.usefixtures("bucket")
def test_a_day_in_a_bucket() -> None:
    store = day_store("s3://reports/llm/daily")
    assert isinstance(store, Bucket)
    assert not store.has("calls-2026-11-20.csv")
    whole = "".join(TEXTS).encode()
    assert store.put("calls-2026-11-20.csv", iter(TEXTS)) == len(whole)
    assert store.has("calls-2026-11-20.csv")
    client = botocore.session.get_session().create_client("s3", region_name="us-east-1")
    answer = client.get_object(Bucket="reports", Key="llm/daily/calls-2026-11-20.csv")
    assert (answer["Body"].read(), answer["ContentType"]) == (whole, "text/csv; charset=utf-8")
    assert not day_store("s3://reports").has("calls-2026-11-20.csv")


@pytest.mark.nightly
@pytest.mark.usefixtures("bucket")
def test_what_a_store_refuses_is_one_line_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DayStoreError, match=r"s3://nowhere/x cannot be written: the store answered 404: there is no such bucket"
    ) as refused:
        day_store("s3://nowhere/x").has("a.csv")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(DayStoreError, match="nothing answers there") as away:
        day_store("s3://reports/x").put("a.csv", TEXTS)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with pytest.raises(DayStoreError, match="no credentials") as nobody:
        day_store("s3://reports/x").has("a.csv")
    for said in (refused, away, nobody):
        assert not any(word in f"{said.value!r}{said.value.__cause__!r}" for word in (SECRET, "AKIACANARY"))


@pytest.mark.parametrize("where", ["s3://", "s3:///x", "s3://key:secret@bucket/x", "s3://bucket/x?key=1"])
def test_an_address_that_is_none_is_refused_without_repeating_it(where: str) -> None:
    with pytest.raises(DayStoreError, match="write s3://BUCKET/PREFIX") as refused:
        day_store(where)
    assert "secret" not in str(refused.value)


def test_a_day_in_a_folder_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    store = day_store(str(tmp_path / "days"))
    assert isinstance(store, Folder)
    assert not store.has("a.csv")
    assert store.put("a.csv", iter(TEXTS)) == len("".join(TEXTS).encode())
    assert (store.has("a.csv"), (tmp_path / "days" / "a.csv").read_text(encoding="utf-8")) == (True, "".join(TEXTS))

    def broken() -> Iterator[str]:
        yield TEXTS[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(DayStoreError, match="cannot be written: No space left on device"):
        store.put("b.csv", broken())
    assert sorted(file.name for file in (tmp_path / "days").iterdir()) == ["a.csv"]
