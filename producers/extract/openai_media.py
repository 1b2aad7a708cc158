"""OpenAI's media, and of all who speak like it: images, speech, transcription, video, realtime.

Where its documentation puts usage: https://developers.openai.com/api/reference and the openai SDK 3.57, read
2026-11-30. What answers of text have in common with these is read here, too: counts by modality, and images drawn.
"""

from dataclasses import replace

from tollmeter.producers.extract.totals import usage_of
from tollmeter.producers.extract.usage import Counts, Part, Usage, get, items, text

HEARD = ("duration", "audio_duration", "metadata.duration")
"""Seconds of a transcript (verbose_json, https://developers.openai.com/api/reference, 2026-11-29; AssemblyAI; Deepgram,
https://developers.deepgram.com/reference/speech-to-text/listen-pre-recorded, 2026-11-30)."""
FILMED = "video.duration"
"""Of xAI (https://docs.x.ai/developers/model-capabilities/video, by the second, 2026-11-30)."""
UNSTATED = "images_unstated"
"""Unit of images whose quality and size nobody said (DALL-E's answers never do): PARTIAL where they are priced."""
IMAGE_TOOL = "tool_usage.image_gen"


def drawn(body: object) -> tuple[Part, ...]:
    """Return what a response's image tool did, which other models do: `usage` holds none of it.

    Where the answer does not say what they used, the part is an image without a price: the cost is PARTIAL.
    (openai SDK 3.57, `Response.tool_usage.image_gen`, `ImageGenerationCall.svg_usage`, 2026-11-30)
    """
    calls = [item for item in items(body, "output") if text(get(item, "type")) == "image_generation_call"]
    parts = [_written(get(call, "svg_usage")) for call in calls if get(call, "svg_usage") is not None]
    stated = Counts(get(body, IMAGE_TOOL))
    input_, output = stated.take("input_tokens"), stated.take("output_tokens")
    if input_ or output or stated.problem:
        model = next((text(get(t, "model")) for t in items(body, "tools") if get(t, "type") == "image_generation"), "")
        extra = modalities(stated, ("input_tokens_details",), ("output_tokens_details",))
        cached = stated.take("cached_tokens")
        extra["cache_image_read_tokens"] = stated.take("cached_tokens_details.cached_image_tokens")
        made = usage_of(
            stated, extra, input_tokens=input_, cache_read_tokens=cached, output_tokens=output, operation="image"
        )
        return (*parts, Part(model, made))
    unstated = [call for call in calls if get(call, "svg_usage") is None and get(call, "result") is not None]
    return (*parts, *(Part("", Usage(extra_units={"generated_images": 1.0})) for _ in unstated))


def _written(block: object) -> Part:
    """Return what the model did that writes an image as text, SVG: it is named, and billed beside the image's."""
    counts = Counts(block)
    usage = usage_of(
        counts,
        input_tokens=counts.take("input_tokens"),
        output_tokens=counts.take("output_tokens"),
        reasoning_tokens=counts.take("reasoning_tokens"),
    )
    return Part(text(get(block, "model")), usage)


def is_media(body: object) -> bool:
    stated = get(body, "usage.input_tokens", "usage.output_tokens", "usage.seconds") is not None
    written = get(body, "text", "results") is not None
    return stated or (written and get(body, *HEARD) is not None)


def media(body: object, _provider: str) -> Usage:
    """Images, speech, transcription and realtime: token counts by modality, or seconds."""
    counts = Counts(get(body, "usage"))
    inputs = ("input_tokens_details", "input_token_details")
    extra = modalities(counts, inputs, ("output_tokens_details", "output_token_details"))
    operation = "chat"
    if is_images(body):
        extra["images"], operation = float(len(items(body, "data"))), "image"
    elif get(body, "text") is not None or get(body, "usage.type") == "duration":
        operation = "transcription"
    extra["audio_seconds"] = counts.amount("seconds")
    if counts.block is None:  # verbose_json of those who state no usage
        counts = Counts(body)
        extra["audio_seconds"], operation = counts.amount(*HEARD), "transcription"
    input_, output = counts.take("input_tokens"), counts.take("output_tokens")
    if operation == "image" and counts.found and not (input_ or output):
        extra |= image_variant(body, extra["images"])
    usage = usage_of(
        counts,
        extra,
        input_tokens=input_,
        cache_read_tokens=counts.take(*(f"{name}.cached_tokens" for name in (*inputs, "prompt_tokens_details"))),
        output_tokens=output,
        reasoning_tokens=counts.take("output_token_details.reasoning_tokens"),
        operation=operation,
    )
    svg = get(body, "svg_usage")
    return usage if svg is None else replace(usage, others=(_written(svg),))


def is_images(body: object) -> bool:
    data = items(body, "data")
    return bool(data) and get(data[0], "b64_json", "url", "revised_prompt") is not None


def images(body: object, _provider: str) -> Usage:
    """Images priced each: the number of them is the usage, and no tokens are a valid count."""
    made = float(len(items(body, "data")))
    return Usage(extra_units={"images": made, **image_variant(body, made)}, operation="image")


def is_video(body: object) -> bool:
    return (get(body, "object") == "video" and get(body, "seconds") is not None) or get(body, FILMED) is not None


def video(body: object, _provider: str) -> Usage:
    """Videos are billed by the second (https://developers.openai.com/api/docs/guides/video-generation, 2026-11-29)."""
    counts = Counts(body)
    return usage_of(counts, {"video_seconds": counts.amount("seconds", FILMED)}, operation="video")


def image_variant(body: object, made: float) -> dict[str, float]:
    """Return the unit of images of another quality or size than usual, and that of images unstated."""
    quality, size = text(get(body, "quality")), text(get(body, "size"))
    name = variant_name(quality, size)
    stated = {f"images_{name}": made} if name else {}
    return stated if quality and size else {**stated, UNSTATED: made}


def variant_name(quality: str, size: str) -> str:
    """Return the name of a quality and a size: "hd_large"; "" for what costs the ordinary price."""
    sides = [int(side) for side in size.lower().split("x") if side.isdecimal()]
    large = {256: "256", 512: "512"}.get(max(sides, default=1024), "large" if max(sides, default=0) > 1024 else "")
    quality = quality.lower() if quality.lower() in ("low", "medium", "high", "hd") else ""
    return "_".join(filter(None, (quality, large)))


def is_session(body: object) -> bool:
    return bool(items(body, "transcriptions"))


def transcribed(body: object) -> tuple[Part, ...]:
    """Return what a realtime session transcribed beside its answers, by a model of its own."""
    parts = []
    for item in items(body, "transcriptions"):
        usage = media({"usage": get(item, "usage"), "text": ""}, "openai")
        parts.append(Part(text(get(item, "model")), usage))
    return tuple(parts)


def modalities(counts: Counts, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> dict[str, float]:
    """Return what is not text, by the price book's keys; cached kinds also as 0 where the answer tells them apart."""
    extra: dict[str, float] = {}
    for direction, places in (("input", inputs), ("output", outputs)):
        for kind in ("audio", "image", "video"):
            extra[f"{direction}_{kind}_tokens"] = counts.take(*(f"{place}.{kind}_tokens" for place in places))
    for kind in ("audio", "image"):
        places = tuple(f"{place}.cached_tokens_details.{kind}_tokens" for place in inputs)
        extra[f"cache_{kind}_read_tokens"] = counts.take(*places)
    told = counts.has(*(f"{place}.cached_tokens_details" for place in inputs))
    return {name: value for name, value in extra.items() if value or (told and name.startswith("cache_"))}
