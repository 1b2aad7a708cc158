"""The doors, each a module with one `DOORS`; this list is all that makes one known."""

from tollmeter.server.door import Door
from tollmeter.server.doors import cloudevents, ingest, litellm, otlp

ALL: tuple[Door, ...] = (*ingest.DOORS, *cloudevents.DOORS, *litellm.DOORS, *otlp.DOORS)
