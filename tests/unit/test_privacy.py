"""Keys become ids, secrets are caught anywhere, and an address goes as far as policy says."""

import hashlib
import hmac

import pytest

from tollmeter.schemas.secrets import key_id, mask_ip, without_secrets

KEY = "sk-test-0123456789abcdef"


def test_key_ids() -> None:
    assert key_id(KEY, compatible=True) == hashlib.sha256(KEY.encode()).hexdigest()[:8]
    assert key_id(KEY, "pepper") == hmac.new(b"pepper", KEY.encode(), hashlib.sha256).hexdigest()[:16]
    assert len({key_id(KEY), key_id(KEY, "a"), key_id(KEY, "b"), key_id(KEY + "x")}) == 4
    assert key_id(KEY, None) == key_id(KEY, "") == key_id(KEY.encode())
    assert key_id("", "pepper") == ""


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefghijklmnop1234",
        "sk-ant-api03-abcdefghijklmnop",
        "AIzaSyA1234567890abcdefghijklmnopqrst",
        "xoxb-123456789012-abcdefghij",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "Bearer abcdefghijklmnop1234",
        "gsk_abcdefghijklmnop1234",
        "ghp_abcdefghijklmnopqrst",
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_secrets_are_seen_and_replaced(secret: str) -> None:
    cleaned = without_secrets({"user_id": secret, "agent": f"bot {secret} end", "tags": {secret: secret}, "n": 1}, "p")
    assert secret not in repr(cleaned)
    assert cleaned["agent"] == f"bot {key_id(secret, 'p')} end"
    assert cleaned["n"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpt-4o",
        "9f86d081884c7d65",
        "risk-assessment-of-portfolios",
        "key-account-management-team",
        "task_runner",
        "chatcmpl-9abcdefghijklmnopqrstuvw",
        "msg_01ABCDEFGHIJKLMNOP",
        "0195d0e0-0000-7000-8000-000000000001",
        "user@example.com",
        "claude-sonnet-4-5-20250929",
        "2001:db8::1",
    ],
)
def test_ordinary_names_stay(text: str) -> None:
    assert without_secrets({"user_id": text}) == {"user_id": text}


def test_mask_ip() -> None:
    assert mask_ip("203.0.113.77") == "203.0.113.77"
    assert mask_ip("203.0.113.77", "truncated") == "203.0.113.0"
    assert mask_ip("2001:db8:1:2::5", "truncated") == "2001:db8:1::"
    assert mask_ip("::ffff:203.0.113.77", "truncated") == "203.0.113.0"
    assert mask_ip("not an address", "truncated") == ""
    assert mask_ip("203.0.113.77", "none") == mask_ip(None) == ""
    hashed = mask_ip("203.0.113.77", "hashed", "today")
    assert len(hashed) == 16
    assert hashed != mask_ip("203.0.113.77", "hashed", "tomorrow")
    with pytest.raises(ValueError, match="salt"):
        mask_ip("203.0.113.77", "hashed")
