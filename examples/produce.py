from tollmeter import UsageProducer

with UsageProducer(service="chat-backend", org_id="acme") as producer:
    producer.record(
        provider="openai", model_sent="gpt-4o", model_used="gpt-4o-2024-08-06",
        input_tokens=1000, output_tokens=200, status="OK", usage_source="PROVIDER",
        user_id="ada", client_ip="203.0.113.7", feature="summarise",
    )  # fmt: skip
    print("sent" if producer.flush() else "kept on disk until the broker answers")
