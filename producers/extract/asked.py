"""What an answer does not repeat of its request and the price rests on: quality and size of images, length of a video,
the text that was spoken. The caller tells it by `asked`, the arguments of the call; what nobody tells stays unstated.
"""

from collections.abc import Mapping
from dataclasses import replace

from tollmeter.producers.extract.openai_media import UNSTATED, variant_name
from tollmeter.producers.extract.usage import Usage, amount, get, items, text

_LENGTHS = (
    "seconds",  # https://developers.openai.com/api/reference (videos, 2026-11-30)
    "duration",  # https://docs.x.ai/developers/model-capabilities/video (2026-11-30)
    *("parameters.durationSeconds", "config.duration_seconds", "config.durationSeconds", "durationSeconds"),
)
"""Where a request says how long a video shall be; the latter ones Veo's (https://ai.google.dev/gemini-api/docs/video)."""
_VIDEOS = (
    *("response.generateVideoResponse.generatedSamples", "response.generated_videos", "response.videos"),
    *("generatedVideos", "generated_videos"),
)


def variant_asked(model: str, quality: object, size: object) -> str | None:
    """Return the variant of images that a request asks for, "" the ordinary one, None where the model chooses."""
    told = [str(one or "").lower() for one in (quality, size)]
    chosen = "auto" in told or (model.startswith("gpt-image") and not all(told))
    return None if chosen else variant_name(*told)


def of_variant(units: Mapping[str, float], variant: str | None) -> dict[str, float]:
    """Return the units of images with the variant that was asked for, where the answer does not state one."""
    if variant is None or UNSTATED not in units:
        return dict(units)
    made = {name: value for name, value in units.items() if not name.startswith("images_")}
    return {**made, f"images_{variant}": units[UNSTATED]} if variant else made


def fields_of(asked: object, given: Mapping[str, object]) -> dict[str, object]:
    """Return the event fields that the arguments of a call tell."""
    spoken = get(asked, "input") if given.get("operation") == "speech" else None
    found = {"model_sent": text(get(asked, "model")), "prompt_chars": len(spoken) if isinstance(spoken, str) else None}
    return {name: value for name, value in found.items() if value}


def completed(usage: Usage, body: object, asked: object, model: str) -> Usage:
    """Return the usage with what the arguments of the call tell beside the answer."""
    if UNSTATED in usage.extra_units:
        variant = variant_asked(model, get(asked, "quality"), get(asked, "size"))
        return replace(usage, extra_units=of_variant(usage.extra_units, variant))
    made = len(items(body, *_VIDEOS))
    seconds = amount(get(asked, *_LENGTHS)) if made and not usage.stated else None
    if not seconds:
        return usage
    return replace(usage, extra_units={"video_seconds": seconds * made}, stated=True, operation="video")
