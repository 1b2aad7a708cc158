"""A model and a provider are known by one name, whoever writes it: PRICE's rows, the guard's question, the policy."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.guards import guard_with, price_record, shipped_book
from tollmeter.producers.extract.served import LITELLM_PROVIDERS
from tollmeter.producers.guard.answers import Answers
from tollmeter.producers.guard.guard import Deny, Guard
from tollmeter.producers.guard.prices import Prices, load_prices
from tollmeter.producers.telemetry.names import PROVIDERS as TOLD_BY_SPANS
from tollmeter.schemas.names import plain_model
from tollmeter.schemas.policy import SCOPE_KINDS, Limit, Policy
from tollmeter.streams.price.book.compile import PROVIDERS
from tollmeter.streams.price.book.providers import MODELS
from tollmeter.streams.price.book.public_map import load_shipped
from tollmeter.streams.rules.pricing.model_names import Names


@cache
def guard_prices() -> Prices:
    return load_prices(price_record()[1], lambda: 1_795_348_800)


def counted(provider: str, sent: str, answered: str = "", host: str = "") -> tuple[str, str]:
    """Return provider and model that PRICE counts a call under."""
    names = Names(provider, answered, sent, "", host, "", "chat", "", "REALTIME")
    return shipped_book().planner.identity(names)


def policy(scope: str, name: str) -> Policy:
    return Policy.model_validate({"org_id": "acme", "scope": scope, "name": name, "daily_limit_micro": 1})


NAMES = st.one_of(
    st.sampled_from([(provider.id, model.id) for provider in PROVIDERS for model in provider.models]),
    st.tuples(st.sampled_from(["", "openai", "nobody", "azure"]), st.text("abgpt4o-./ 2026", min_size=1, max_size=14)),
)
DATES = st.sampled_from(["", "-2026-08-06", "-20260806", "@20260806"])
CASES = st.sampled_from([str.lower, str.upper, str.title, str])
BLANKS = st.sampled_from(["", " ", "\t"])


@given(NAMES, DATES, CASES, BLANKS)
def test_line_and_guard_know_a_call_by_one_name(names: tuple[str, str], date: str, cased: object, blank: str) -> None:
    provider, model = names
    assert callable(cased)
    sent = f"{blank}{cased(model)}{date}{blank}"
    if not sent.strip():
        return
    provider_id, model_id = counted(provider, sent)
    assert guard_prices().identity(provider, sent) == (provider_id, model_id)
    if model_id:
        assert policy("model", model_id).name == model_id, "a policy can name every model that is counted"
    if provider_id:
        assert policy("provider", provider_id).name == provider_id


@given(CASES, BLANKS, st.sampled_from(["", "openai/", "OpenAI/"]), st.sampled_from(["openai", "OpenAI", " openai "]))
def test_every_spelling_meets_the_policy(cased: object, blank: str, path: str, provider: str) -> None:
    assert callable(cased)
    written = f"{blank}{path}{cased('gpt-4o')}{blank}"
    assert (policy("model", written).scope, policy("model", written).name) == ("model", "gpt-4o")
    assert policy("provider", provider).name == "openai"
    assert counted(provider, written, "gpt-4o-2024-08-06") == ("openai", "gpt-4o")
    assert guard_prices().identity(provider, written) == ("openai", "gpt-4o")


@pytest.mark.parametrize(
    ("provider", "sent", "answered", "model"),
    [
        ("openai", "gpt-4o", "gpt-4o-2024-08-06", "gpt-4o"),
        ("openai", "gpt-4o", "gpt-4o-2024-05-13", "gpt-4o"),
        ("openai", "gpt-4o-mini", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("openai", "gpt-4", "gpt-4-0613", "gpt-4"),
        ("openai", "gpt-3.5-turbo", "gpt-3.5-turbo-0125", "gpt-3.5-turbo"),
        ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("openrouter", "openai/gpt-4o", "openai/gpt-4o", "gpt-4o"),
        ("azure", "gpt-4o", "gpt-4o-2024-08-06", "gpt-4o"),
        ("nobody", "our-model", "our-model-2026-01-02", "our-model"),
    ],
)
def test_a_dated_answer_is_the_model_that_was_asked(provider: str, sent: str, answered: str, model: str) -> None:
    assert counted(provider, sent, answered) == (provider, model)
    assert guard_prices().identity(provider, sent) == (provider, model)
    assert guard_prices().identity(provider, answered) == (provider, model)


HOSTS = [
    *(
        "",
        "api.openai.com",
        "API.OpenAI.com",
        "api.groq.com",
        "api.anthropic.com",
        "x.openai.azure.com",
        "openrouter.ai",
    ),
    *("bedrock-runtime.us-east-1.amazonaws.com", "eu-aiplatform.googleapis.com", "generativelanguage.googleapis.com"),
    *("api.mistral.ai", "api.deepseek.com", "api.x.ai", "api.together.xyz", "127.0.0.1:8000", "my.proxy:8443"),
]
LIKE = [
    *(
        "openai-compatible",
        "OpenAI_Like",
        "OpenAIX",
        "my openai proxy",
        "not-anthropic",
        "anthropic.proxy",
        "multimodal",
    ),
    *(
        "amazon sagemaker",
        "googleplex",
        "mistralish",
        "cloudflare-ai-gateway",
        "ms-copilot",
        "bedrock.local",
        "coherent",
    ),
]
STATED = [
    *("", "openai", "OpenAI", " azure", "azure_openai", "litellm", "groq", "bedrock", "vertex_ai", "nobody"),
    *("Azure OpenAI", "openai.responses", "google.vertex.chat", "Google-GenAI", *LIKE),
]
WRITTEN = [
    *("gpt-4o", "GPT-4o", " gpt-4o", "openai/gpt-4o", "gpt-4o-2024-08-06", "gpt-4-0613", "ft:gpt-4o:acme::x"),
    *("prod-chat", "azure/prod-chat", "https://x/deployments/gpt-4o", "groq/llama-3.1-8b-instant", "x", "/", "a/b/c"),
    *("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "global.anthropic.claude-sonnet-4-5-20250929-v1:0"),
    *("anthropic.claude-3-5-sonnet-20241022-v2:0", "us.amazon.nova-pro-v1:0", "us.meta.llama3-1-70b-instruct-v1:0"),
    "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-20250514-v1:0",
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123",
    *("claude-sonnet-4-5@20250929", "claude-3-5-sonnet@20240620", "models/gemini-2.5-pro", "gemini-2.5-pro"),
    *(
        "publishers/google/models/gemini-2.5-pro",
        "tunedModels/abc",
        "accounts/fireworks/models/llama-v3p1-70b-instruct",
    ),
    *("meta-llama/Llama-3.3-70B-Instruct-Turbo", "anthropic/claude-sonnet-4.5", "openai/gpt-4o:online", "sonar-pro"),
]


@pytest.mark.parametrize("host", HOSTS)
def test_the_host_settles_the_provider_in_the_guard_as_in_price(host: str) -> None:
    prices = guard_prices()
    for stated in STATED:
        for sent in WRITTEN:
            asked = prices.identity(prices.called(stated, sent, host), sent)
            assert asked == counted(stated, sent, host=host), (stated, sent)


@given(NAMES, DATES, CASES, st.sampled_from(HOSTS), st.sampled_from(STATED))
def test_any_name_at_any_host_is_known_by_one_name(
    names: tuple[str, str], date: str, cased: object, host: str, stated: str
) -> None:
    assert callable(cased)
    sent = f"{cased(names[1])}{date}"
    if sent.strip():
        prices = guard_prices()
        assert prices.identity(prices.called(stated, sent, host), sent) == counted(stated, sent, host=host)


@pytest.mark.parametrize("stated", LIKE)
@pytest.mark.parametrize("sent", ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "mistral-large-latest", "command-r"])
def test_a_name_like_a_provider_is_somebody_else(stated: str, sent: str) -> None:
    assert counted(stated, sent)[0] == policy("provider", stated).name == stated.lower()


@pytest.mark.parametrize("words", [TOLD_BY_SPANS, LITELLM_PROVIDERS])
def test_doors_and_prices_know_the_same_words(words: dict[str, str]) -> None:
    known = {word: provider for word, provider in words.items() if provider in MODELS}
    assert {word: counted(word, "x")[0] for word in known} == known


def test_a_name_with_a_date_is_a_version() -> None:
    made = policy("model", " gpt-4o-2024-08-06")
    assert (made.scope, made.name) == ("version", "gpt-4o-2024-08-06")
    assert "version" in SCOPE_KINDS


# one name of a model, whoever sells it -----------------------------------------------------------------------------

EVERY_NAME = sorted(
    {(provider.id, model.id) for provider in PROVIDERS for model in provider.models}
    | {(line.seller, line.name) for line in load_shipped()}
)


def budgeted(name: str) -> str:
    """Return the name under which commands keep a budget for a model that is written so."""
    made = policy("model", counted("", name)[1] or name)
    assert made.scope == "model", name
    return made.name


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.nightly)])
def test_a_budget_of_any_name_of_the_price_book_counts_the_calls_of_that_name(every: int) -> None:
    """Whoever sells it: the name alone says which model it is, in PRICE, in the guard and in the policy."""
    missed = []
    for provider, name in EVERY_NAME[::every]:
        model = counted(provider, name)[1]
        known = {model, guard_prices().identity(provider, name)[1], budgeted(name), budgeted(plain_model(name))}
        if len(known) > 1 or plain_model(model) != model:
            missed.append((provider, name, known))
    assert len(EVERY_NAME) > 6_000
    assert missed == []


ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/"
SONNET = "claude-sonnet-4-5"
LLAMA = "llama-3.3-70b-instruct"
SOLD_AS = [
    ("anthropic", "claude-sonnet-4-5", SONNET),
    ("anthropic", "claude-sonnet-4-5-20250929", SONNET),
    ("aws", "anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("bedrock", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("aws", "us-gov.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("aws", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("aws", f"{ARN}us.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("litellm", "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", SONNET),
    ("google", "claude-sonnet-4-5@20250929", SONNET),
    ("vertex_ai", "publishers/anthropic/models/claude-sonnet-4-5@20250929", SONNET),
    ("openrouter", "anthropic/claude-sonnet-4.5", SONNET),
    ("openrouter", "anthropic/claude-sonnet-4.5:batch", SONNET),
    ("github-copilot", "claude-sonnet-4.5", SONNET),
    ("anthropic", "claude-opus-4-20250514", "claude-opus-4"),
    ("anthropic", "claude-opus-4-0", "claude-opus-4"),
    ("aws", "us.anthropic.claude-opus-4-20250514-v1:0", "claude-opus-4"),
    ("anthropic", "claude-3-7-sonnet-latest", "claude-3-7-sonnet"),
    ("openai", "gpt-4o-2024-08-06", "gpt-4o"),
    ("openrouter", "openai/gpt-4o:online", "gpt-4o"),
    ("mistral", "mistral-large-latest", "mistral-large"),
    ("aws", "mistral.mistral-large-2402-v1:0", "mistral-large"),
    ("aws", "us.deepseek.r1-v1:0", "deepseek-r1"),
    ("openrouter", "deepseek/deepseek-r1", "deepseek-r1"),
    *(
        (seller, name, LLAMA)
        for seller, name in (
            ("groq", "llama-3.3-70b-versatile"),
            ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
            ("fireworks", "accounts/fireworks/models/llama-v3p3-70b-instruct"),
            ("aws", "us.meta.llama3-3-70b-instruct-v1:0"),
            ("openrouter", "meta-llama/llama-3.3-70b-instruct:free"),
            ("cerebras", "llama-3.3-70b"),
            ("huggingface", "meta-llama/Llama-3.3-70B-Instruct"),
            ("azure", "Llama-3.3-70B-Instruct"),
            ("google", "meta/llama-3.3-70b-instruct-maas"),
            ("databricks", "databricks-meta-llama-3-3-70b-instruct"),
        )
    ),
    ("groq", "llama-3.1-8b-instant", "llama-3.1-8b-instruct"),
    ("aws", "meta.llama3-1-8b-instruct-v1:0", "llama-3.1-8b-instruct"),
    ("azure", "Meta-Llama-3.1-8B-Instruct", "llama-3.1-8b-instruct"),
    ("aws", "meta.llama3-8b-instruct-v1:0", "llama-3-8b-instruct"),
    ("aws", "us.meta.llama4-scout-17b-instruct-v1:0", "llama-4-scout-17b-16e-instruct"),
    ("groq", "meta-llama/llama-4-scout-17b-16e-instruct", "llama-4-scout-17b-16e-instruct"),
    ("together", "meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", "llama-4-maverick-17b-128e-instruct"),
    ("ollama", "gpt-oss:120b", "gpt-oss-120b"),
    ("aws", "openai.gpt-oss-120b-1:0", "gpt-oss-120b"),
    ("google", "openai/gpt-oss-120b-maas", "gpt-oss-120b"),
    ("fireworks", "accounts/fireworks/models/qwen2p5-72b-instruct", "qwen2.5-72b-instruct"),
    ("openrouter", "qwen/qwen-2.5-72b-instruct", "qwen2.5-72b-instruct"),
    ("cerebras", "qwen-3-32b", "qwen3-32b"),
    ("aws", "mistral.mixtral-8x7b-instruct-v0:1", "mixtral-8x7b-instruct"),
    ("together", "mistralai/Mixtral-8x7B-Instruct-v0.1", "mixtral-8x7b-instruct"),
    ("groq", "gemma2-9b-it", "gemma-2-9b-it"),
    ("aws", "deepseek.v3-v1:0", "deepseek-v3.1"),
    ("fireworks", "accounts/fireworks/models/deepseek-v3p1", "deepseek-v3.1"),
    ("openrouter", "deepseek/deepseek-chat-v3.1", "deepseek-v3.1"),
    # other models than those whose names begin like theirs
    ("groq", "deepseek-r1-distill-llama-70b", "deepseek-r1-distill-llama-70b"),
    ("openrouter", "anthropic/claude-opus-4.8-fast", "claude-opus-4-8-fast"),
    ("avian", "minimax/minimax-m2.5", "minimax-m2.5"),
    ("ollama", "qwen2.5:7b", "qwen2.5:7b"),
    ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
    # what a name does not say is not guessed: tuned or not, which size, which of two
    ("huggingface", "meta-llama/Llama-3.1-8B", "llama-3.1-8b"),
    ("nvidia", "nvidia/llama-3.1-nemotron-70b-instruct", "llama-3.1-nemotron-70b-instruct"),
    ("ollama", "llama3.3:70b", "llama3.3:70b"),
    ("openrouter", "meta-llama/llama-4-scout", "llama-4-scout"),
    ("openai", "gpt-3.5-turbo-instruct", "gpt-3.5-turbo-instruct"),
    ("alibaba", "qwen-turbo", "qwen-turbo"),
]


@pytest.mark.parametrize(("provider", "name", "model"), SOLD_AS, ids=[f"{one[0]} {one[1]}" for one in SOLD_AS])
def test_a_model_has_one_name_whoever_sells_it(provider: str, name: str, model: str) -> None:
    assert counted(provider, name)[1] == model
    assert guard_prices().identity(provider, name)[1] == model
    assert budgeted(name) == model


@pytest.mark.parametrize(
    "deployment", ["prod-chat", "gpt-35", "claude-sonnet-4-5", "https://x.openai.azure.com/openai/deployments/prod"]
)
def test_a_deployment_whose_model_is_known_is_counted_under_it(deployment: str) -> None:
    """The answer names the model; the guard has learned it from an answer before."""
    host = "x.openai.azure.com"
    assert counted("azure", deployment, "gpt-4o-2024-08-06", host)[1] == "gpt-4o"
    answers, prices = Answers(), guard_prices()
    answers.learn(prices, "azure", host, deployment, "gpt-4o-2024-08-06")
    provider, model = prices.identity("azure", deployment)
    assert answers.of(provider, host, deployment, model)[1] == "gpt-4o"


@pytest.fixture(scope="module")
def guard() -> Guard:
    return guard_with(max_usd=100)


@pytest.mark.parametrize(("provider", "name", "model"), SOLD_AS, ids=[f"{one[0]} {one[1]}" for one in SOLD_AS])
def test_a_spent_budget_of_a_model_refuses_it_under_every_name(
    guard: Guard, provider: str, name: str, model: str
) -> None:
    """Each name is used up in an organisation of its own."""
    org, one_call = f"{provider} {name}", Limit(period="day", measure="requests", amount=1)
    limited = Policy(org_id=org, scope="model", name=model, limits=(one_call,))
    assert guard.apply("policies", f"policy:{limited.policy_id}".encode(), limited.model_dump_json().encode())
    for _ in range(2):
        assert guard.check("gpt-5-nano", org=org, provider="openai"), "another model is not limited"
    assert guard.check(name, org=org, provider=provider)
    refused = guard.check(name, org=org, provider=provider)
    assert isinstance(refused, Deny), name
    assert (refused.error, refused.body["scope"], refused.body["name"]) == ("CostLimitExceeded", "model", model)
