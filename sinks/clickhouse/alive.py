"""Does ClickHouse answer at all? Asked beside questions: slow is not away, and for what hangs nobody waits."""

from urllib.parse import urlsplit

from clickhouse_connect.driver.httputil import check_env_proxy, default_pool_manager, get_pool_manager
from urllib3 import Timeout
from urllib3.exceptions import HTTPError

ANSWER_S = 2.0
"""It says that it is there without a look at anything: whoever cannot do that in so long answers nothing else."""


def answers(where: str, seconds: float = ANSWER_S) -> bool:
    """Tell whether a server at `http(s)://HOST:PORT` says anything, whatever it is; by the way that questions take."""
    url = urlsplit(where)
    proxy = check_env_proxy(url.scheme, url.hostname or "", url.port or 0)
    pool = default_pool_manager()
    if proxy:
        pool = get_pool_manager(https_proxy=proxy) if url.scheme == "https" else get_pool_manager(http_proxy=proxy)
    try:
        pool.request("GET", f"{where}/ping", timeout=Timeout(total=seconds), retries=False, redirect=False)
    except HTTPError:
        return False
    return True
