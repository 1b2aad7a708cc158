"""Guard and meter an application: one line around the HTTP client of its SDK."""

import httpx2
import openai

from tollmeter import Guard, UsageProducer, answer_of, metered

producer = UsageProducer(service="shop")
guard = Guard(producer=producer)  # knows prices, budgets and blocks; a check takes microseconds and no network
guard.ready(10)

client = openai.OpenAI(http_client=metered(httpx2.Client(), guard=guard, producer=producer, org="demo", user_id="ann"))

for most in (100, 100_000):  # the second may cost more than one call is allowed to
    try:
        reply = client.chat.completions.with_raw_response.create(
            model="gpt-4o", max_tokens=most, messages=[{"role": "user", "content": "Say hello"}]
        )
        print(reply.parse().choices[0].message.content, answer_of(reply))
    except openai.APIStatusError as refused:
        print(refused.status_code, refused.response.json())

producer.flush()
