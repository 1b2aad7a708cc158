"""What a type checker sees of the package, whose names are loaded on first use."""

from tollmeter.producers.client.client import UsageProducer as UsageProducer
from tollmeter.producers.client.scope import calling as calling
from tollmeter.producers.extract.extract import aextract as aextract
from tollmeter.producers.extract.extract import aextract_all as aextract_all
from tollmeter.producers.extract.extract import extract as extract
from tollmeter.producers.extract.extract import extract_all as extract_all
from tollmeter.producers.fallback.chain import Client as Client
from tollmeter.producers.fallback.chain import FallbackChain as FallbackChain
from tollmeter.producers.fallback.config import FallbackConfig as FallbackConfig
from tollmeter.producers.fallback.native import NativeClient as NativeClient
from tollmeter.producers.fallback.native import Target as Target
from tollmeter.producers.guard.guard import Guard as Guard
from tollmeter.producers.http.answer import answer_of as answer_of
from tollmeter.producers.http.instrument import instrument as instrument
from tollmeter.producers.http.meter import Meter as Meter
from tollmeter.producers.http.metered import metered as metered
from tollmeter.producers.middleware.asgi import MeterASGI as MeterASGI
from tollmeter.producers.middleware.wsgi import MeterWSGI as MeterWSGI
from tollmeter.schemas.event import UsageEvent as UsageEvent

__version__: str
