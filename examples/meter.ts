// Meters what goes through `fetch`: give `metered(...)` to an SDK, as in `new OpenAI({ fetch: metered(options) })`.
// The call itself is never delayed or broken: its answer is read from a copy, and what cannot be sent is logged.

declare const process: { env: Record<string, string | undefined> };

export interface Options {
  /** Address of `tollmeter serve`, and one of its keys. */
  url: string;
  key: string;
  /** Fields of every event: service, environment, user_id ... (docs/json.md lists them). */
  fields: { service: string; provider: string } & Record<string, unknown>;
}

type Fetch = typeof fetch;

export function metered(options: Options): Fetch {
  return async (input, init) => {
    const occurred_at = new Date().toISOString();
    const began = performance.now();
    const answer = await fetch(input, init);
    void record(options, answer.clone(), { occurred_at, http_status: answer.status }, init?.body, began);
    return answer;
  };
}

async function record(options: Options, answer: Response, known: object, asked: unknown, began: number): Promise<void> {
  try {
    const said = usageOf(await answer.text());
    const sent = typeof asked === "string" ? JSON.parse(asked) : {};
    const event = {
      event_id: crypto.randomUUID(), // made once: sent again it counts once
      ...known,
      ...options.fields,
      model_sent: sent.model,
      model_used: said?.model,
      stream: Boolean(sent.stream),
      status: answer.ok ? "OK" : "ERROR",
      latency_ms: Math.round(performance.now() - began),
      usage_source: said?.usage ? "PROVIDER" : "NONE", // not known is not 0
      input_tokens: said?.usage?.prompt_tokens ?? 0,
      cache_read_tokens: said?.usage?.prompt_tokens_details?.cached_tokens ?? 0,
      output_tokens: said?.usage?.completion_tokens ?? 0,
      reasoning_tokens: said?.usage?.completion_tokens_details?.reasoning_tokens ?? 0,
    };
    await send(options, JSON.stringify(event));
  } catch (error) {
    console.warn("tollmeter: a call was not recorded:", error);
  }
}

/** Sends again what was not acknowledged: the event has its id, so it counts once. */
async function send(options: Options, body: string): Promise<void> {
  const headers = { "content-type": "application/json", "x-ingest-key": options.key };
  for (let pause_ms = 200; ; pause_ms *= 2) {
    const answer = await fetch(`${options.url}/ingest`, { method: "POST", headers, body }).catch(() => undefined);
    if (answer?.ok) return;
    if (answer && answer.status < 500 && answer.status !== 429) throw new Error(await answer.text());
    if (pause_ms > 10_000) throw new Error("the meter cannot be reached");
    await new Promise((resume) => setTimeout(resume, pause_ms));
  }
}

/** An answer of OpenAI's chat completions, whole or streamed (with `stream_options: { include_usage: true }`). */
function usageOf(text: string): any {
  if (!text.startsWith("data:")) return JSON.parse(text);
  const chunks = text.split("\n").filter((line) => line.startsWith("data: {"));
  return chunks.map((line) => JSON.parse(line.slice(6))).findLast((chunk) => chunk.usage);
}

// As the test runs it: one call, plain.
if (process.env.OPENAI_BASE_URL) {
  const url = process.env.TOLLMETER_URL ?? "http://127.0.0.1:5001";
  const ask = metered({ url, key: process.env.INGEST_KEY ?? "", fields: { service: "shop-ts", provider: "openai" } });
  const answer = await ask(`${process.env.OPENAI_BASE_URL}/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${process.env.OPENAI_API_KEY}` },
    body: JSON.stringify({ model: "gpt-4o", messages: [{ role: "user", content: "hello" }] }),
  });
  console.log(answer.status);
}
