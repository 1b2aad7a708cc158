"""Where files of days go: a folder, or a bucket of an S3-compatible store. A file is there whole or not at all.

A bucket is s3://BUCKET/PREFIX; address and credentials are found as AWS's library finds them (extra `s3`: botocore):
AWS_ENDPOINT_URL_S3 names a store that is not Amazon's. Neither reaches a message.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from tollmeter.installing import how_to_get

SCHEME = "s3://"


class DayStoreError(Exception):
    """The files cannot be written there; one line says why and what to do."""


class DayStore(Protocol):
    """What an export of days asks of a place."""

    def has(self, name: str) -> bool:
        """Tell whether a file is there. Raises `DayStoreError`."""
        ...

    def put(self, name: str, texts: Iterable[str]) -> int:
        """Return the size in bytes when the file is there. Raises `DayStoreError`."""
        ...


def day_store(where: str) -> DayStore:
    """Return the store of a folder's path or an s3:// address. Raises `DayStoreError`."""
    return Bucket(where) if where.startswith(SCHEME) else Folder(Path(where))


class Folder:
    """Files in a folder, which is made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, name: str) -> bool:
        return (self._folder / name).exists()

    def put(self, name: str, texts: Iterable[str]) -> int:
        file = self._folder / name
        making = file.with_name(f"{name}.{os.getpid()}")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with making.open("w", encoding="utf-8", newline="") as out:
                out.writelines(texts)
                out.flush()
                os.fsync(out.fileno())
            making.replace(file)
            return file.stat().st_size
        except OSError as error:
            making.unlink(missing_ok=True)
            raise DayStoreError(f"{self._folder} cannot be written: {error.strerror}") from None


class Bucket:
    """Objects in a bucket, each put in one request: a reader sees all of it or nothing."""

    def __init__(self, where: str) -> None:
        parts = urlsplit(where)
        self._where = f"{SCHEME}{parts.hostname or ''}{parts.path}"
        self._bucket, self._prefix = parts.netloc, parts.path.strip("/")
        if not self._bucket or "@" in self._bucket or parts.query:
            raise DayStoreError(
                "write s3://BUCKET/PREFIX, without credentials, which AWS_ACCESS_KEY_ID ... or a profile has"
            )
        try:
            import botocore.session
            from botocore.config import Config
        except ModuleNotFoundError:
            raise DayStoreError(f"a bucket needs AWS's library: {how_to_get('s3')}") from None
        options = Config(
            retries={"mode": "standard", "max_attempts": 5},
            connect_timeout=10,
            read_timeout=60,
            request_checksum_calculation="when_required",  # other stores do not know the newest ones
        )
        session = botocore.session.get_session()
        with _saying(self._where):
            region = session.get_config_variable("region") or "us-east-1"
            self._client: Any = session.create_client("s3", region_name=region, config=options)

    def has(self, name: str) -> bool:
        from botocore.exceptions import ClientError

        with _saying(self._where):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._key(name))
            except ClientError as refused:
                if refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                    return self._lacks()
                raise
            return True

    def put(self, name: str, texts: Iterable[str]) -> int:
        with tempfile.TemporaryFile() as file:
            for text in texts:
                file.write(text.encode())
            size = file.tell()
            file.seek(0)
            with _saying(self._where):
                self._client.put_object(
                    Bucket=self._bucket, Key=self._key(name), Body=file, ContentType="text/csv; charset=utf-8"
                )
            return size

    def _lacks(self) -> bool:
        """Return False when the bucket is there and the object is not: a HEAD tells neither from the other."""
        self._client.head_bucket(Bucket=self._bucket)
        return False

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


@contextmanager
def _saying(where: str) -> Iterator[None]:
    """Say what the store answered in a line of our own: the library's lines may hold addresses and ids of keys."""
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, NoCredentialsError

    try:
        yield
    except NoCredentialsError:
        why = "no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or the machine's role give them"
    except EndpointConnectionError:
        why = "nothing answers there: AWS_ENDPOINT_URL_S3 and the region say where the store is"
    except ClientError as refused:
        status = refused.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = str(refused.response.get("Error", {}).get("Code", ""))[:40]
        said = f"{status}" if code == f"{status}" else f"{status} {code}".rstrip()
        why = f"the store answered {said}" + _ADVICE.get(str(status), "")
    except BotoCoreError as error:
        why = f"the store cannot be asked ({type(error).__name__})"
    else:
        return
    raise DayStoreError(f"{where} cannot be written: {why}")


_ADVICE = {
    "403": ": these credentials may not do that; they need s3:GetObject, s3:ListBucket and s3:PutObject there",
    "404": ": there is no such bucket; make it first",
}
