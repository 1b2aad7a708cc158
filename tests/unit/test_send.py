"""What `send` says of a price that is missing, and how images are counted."""

import pytest
from click.testing import CliRunner

from tollmeter.cli.send import _reason, image_units, send
from tollmeter.settings import Settings


def row(status: str, model: str = "gpt-4oo", risk: int | None = 15_000_000) -> dict[str, object]:
    return {"price_status": status, "model_sent": model, "at_risk_nano": risk}


def test_an_unknown_model_gets_a_reason_and_the_nearest_names() -> None:
    told = _reason(row("UNKNOWN_MODEL"), "openai")
    assert told["why"] == (
        "no price is known for gpt-4oo at openai, so its cost is unknown, not 0; limits count 0.015000 USD at risk"
    )
    assert "openai/gpt-4o" in told["nearest"]
    assert "limits count nothing for it" in _reason(row("UNKNOWN_MODEL", risk=None), "x")["why"]


@pytest.mark.parametrize(
    ("status", "told"), [("NO_USAGE", "--in, --out or --images"), ("PARTIAL", "nearest known rate")]
)
def test_other_prices_that_are_missing_or_not_exact(status: str, told: str) -> None:
    assert told in _reason(row(status), "openai")["why"]


@pytest.mark.parametrize("status", ["PRICED", "OVERRIDE", "FREE"])
def test_an_exact_price_needs_no_reason(status: str) -> None:
    assert _reason(row(status), "openai") == {}


def test_images_are_counted_and_a_variant_beside_them() -> None:
    assert image_units(2, "") == {"images": 2.0}
    assert image_units(2, "hd_1024x1792") == {"images": 2.0, "images_hd_1024x1792": 2.0}


@pytest.mark.parametrize("options", [["--images", "0"], ["--images", "-1"], ["--image-variant", "hd"]])
def test_images_that_are_none_are_refused(options: list[str]) -> None:
    result = CliRunner().invoke(send, ["--model", "dall-e-3", *options], obj=Settings(kafka="127.0.0.1:1"))
    assert result.exit_code == 2
    assert "--image" in result.stderr
