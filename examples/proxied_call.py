"""A stock SDK through the proxy: an address and a key of the server, and no other change."""

import openai

client = openai.OpenAI(default_headers={"x-tollmeter-operation": "summarise"})
reply = client.chat.completions.with_raw_response.create(
    model="gpt-4o", max_tokens=100, messages=[{"role": "user", "content": "Say hello"}]
)
told = {name: value for name, value in reply.headers.items() if name.startswith("x-tollmeter-")}
print(reply.parse().choices[0].message.content, told)
