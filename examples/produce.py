"""Publish one model call to the stack that `tollmeter up` runs."""

from types import SimpleNamespace

from tollmeter import UsageProducer, extract

producer = UsageProducer(service="shop", org_id="demo")  # one per process; finds the stack, or set TOLLMETER_KAFKA

# The reply of any SDK; with OpenAI it comes from client.chat.completions.create and looks like this to us:
reply = SimpleNamespace(id="chatcmpl-1", model="gpt-4o", usage={"prompt_tokens": 1000, "completion_tokens": 200})

event_id = producer.record(extract(reply, user_id="ann", feature="summarise"))  # never blocks, never raises
print(event_id, "is in Kafka" if producer.flush(10) else "waits on disk until Kafka is there")
