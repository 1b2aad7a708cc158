"""OpenAI, else the local Ollama, else Gemini: each call by the first that can and may, and its event says so.

Without an SDK here; a metered SDK client serves as well: {"openai": client.chat.completions.create, ...}.
"""

import os
from pathlib import Path

from tollmeter import Client, FallbackChain, FallbackConfig, Guard, Meter, NativeClient, Target, UsageProducer

OPENAI = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
OLLAMA = os.environ.get("OLLAMA_HOST", "http://127.0.0.1:11434")
GEMINI = os.environ.get("GEMINI_BASE_URL", "https://generativelanguage.googleapis.com")

producer = UsageProducer(service="shop", org_id="demo")
guard = Guard(producer=producer)
meter = Meter(producer, guard)

openai = NativeClient(Target("openai", OPENAI, os.environ["OPENAI_API_KEY"]), meter)
ollama = NativeClient(Target("ollama", OLLAMA), meter)
gemini = NativeClient(Target("gemini", GEMINI, os.environ["GEMINI_API_KEY"]), meter)

config = FallbackConfig.from_file(Path(__file__).with_name("fallback.yaml"))
chain = FallbackChain(config, {"openai": Client(openai, openai.probe), "ollama": ollama, "gemini": gemini})

reply = chain.run("summarise", messages=[{"role": "user", "content": "Say hello"}])
print(f"{reply.model}: {reply.text}")
producer.close()
