"""The proxy's pure rules: where a request goes, whose key stands where, which headers pass, who may say who he is."""

from typing import Any

import pytest

from tollmeter.server.auth import Caller
from tollmeter.server.problems import Problem
from tollmeter.server.proxy.aim import aim
from tollmeter.server.proxy.config import load
from tollmeter.server.proxy.headers import to_caller, to_provider
from tollmeter.server.proxy.identity import scope_of
from tollmeter.server.proxy.keys import key_header, our_key, query_without_key, without_keys
from tollmeter.server.proxy.operations import check_body, check_operation, operation_of
from tollmeter.yaml_files import YamlError

OURS, THEIRS = "tm-ours", "sk-theirs"
OWN_CHAIN = "fallback: {clients: {own: {model: m}}, operations: {}}"
SERVICE, TRUSTED = Caller("k1", "ingest", "acme"), Caller("k2", "ingest", "acme", may_set_identity=True)


def refused(call: Any, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(Problem) as raised:
        call(*arguments)
    return raised.value.status, raised.value.code


# ---------------------------------------------------------------------------------------------------------------- paths


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/proxy/openai/v1/chat/completions", ("openai", "/v1/chat/completions", "")),
        ("/proxy/openai/key=tm-ours/v1/models", ("openai", "/v1/models", "tm-ours")),
        ("/proxy/gemini/v1beta/models/gemini-2.5-flash:generateContent", None),
        ("/proxy/bedrock/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse", None),
        ("/proxy/my-own_2/", ("my-own_2", "/", "")),
        ("/proxy/openai", ("openai", "/", "")),
        ("/proxy/openai/v1/models/", ("openai", "/v1/models/", "")),
        ("/proxy/openai/v1/files/a..b", ("openai", "/v1/files/a..b", "")),
    ],
)
def test_a_path_goes_on_as_it_was_sent(path: str, expected: Any) -> None:
    name, _, rest = path.removeprefix("/proxy/").partition("/")
    assert aim(path.encode()) == (expected or (name, f"/{rest}", ""))


@pytest.mark.parametrize(
    "rest",
    [
        "v1/../admin",
        "v1/..",
        "..",
        ".",
        "v1/./models",
        "v1/%2e%2e/admin",
        "v1/.%2E/admin",
        "v1/..;x/admin",
        "v1/..%3bx/admin",
        "v1%2fmodels",
        "v1%2Fmodels",
        "v1%5cmodels",
        "v1\\models",
        "v1/%252e%252e/x",
        "v1/%zz",
        "v1/%",
        "v1/a%00b",
        "v1/a%0d%0aHost:%20evil",
        "v1/a%3fb",
        "v1/a%23b",
        "v1//models",
        "/models",
        "key=/",
        "v1/é",
        "v1/a b",
        "v1/<x>",
        "@evil.example/v1",
    ],
)
def test_what_two_servers_could_read_in_two_ways_is_refused(rest: str) -> None:
    if rest in ("key=/", "@evil.example/v1"):  # nothing but a path comes of them
        assert aim(f"/proxy/openai/{rest}".encode("latin-1")).path.startswith("/")
        return
    assert refused(aim, f"/proxy/openai/{rest}".encode("latin-1")) == (400, "bad_path")


@pytest.mark.parametrize(
    "path", ["/proxy/", "/proxy//v1", "/proxy/Open AI/v1", "/proxy/http:%2f%2fevil/v1", "/other/openai"]
)
def test_there_are_upstreams_by_name_alone(path: str) -> None:
    assert refused(aim, path.encode()) == (404, "no_upstream")


# ----------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("headers", "query", "in_path", "whose"),
    [
        ([("authorization", f"Bearer {OURS}")], "", "", "environment"),
        ([("authorization", f"bearer  {OURS} ")], "", "", "environment"),
        ([("x-api-key", OURS)], "", "", "environment"),
        ([("x-goog-api-key", OURS)], "", "", "environment"),
        ([("api-key", OURS)], "", "", "environment"),
        ([], f"alt=sse&key={OURS}", "", "environment"),
        ([], "", OURS, "environment"),
        ([("x-api-key", OURS), ("authorization", f"Bearer {OURS}")], "", "", "environment"),
        ([("x-tollmeter-key", OURS), ("authorization", "Bearer unused")], "", "", "environment"),
        ([("x-tollmeter-key", OURS), ("authorization", f"Bearer {THEIRS}")], "", "", "caller"),
        ([("x-api-key", THEIRS)], "", OURS, "caller"),
    ],
)
def test_our_key_is_found(headers: Any, query: str, in_path: str, whose: Any) -> None:
    assert our_key(headers, query, in_path, whose) == OURS


@pytest.mark.parametrize(
    ("headers", "query", "in_path", "whose", "expected"),
    [
        ([], "", "", "environment", (401, "no_key")),
        ([("authorization", "")], "", "", "environment", (401, "no_key")),
        ([("authorization", f"Bearer {THEIRS}")], "", "", "caller", (401, "no_key")),
        ([("authorization", f"Bearer {OURS}"), ("x-api-key", THEIRS)], "", "", "environment", (400, "several_keys")),
        (
            [("authorization", f"Bearer {OURS}"), ("authorization", "Bearer x")],
            "",
            "",
            "environment",
            (400, "several_keys"),
        ),
        ([("authorization", f"Bearer {OURS}")], "key=other", "", "environment", (400, "several_keys")),
        ([("x-tollmeter-key", OURS)], "", "other", "caller", (400, "several_keys")),
        (
            [("authorization", "AWS4-HMAC-SHA256 Credential=AKIA/20261129")],
            "",
            "",
            "environment",
            (400, "signed_request"),
        ),
        ([("x-tollmeter-key", OURS)], "X-Amz-Signature=abc", "", "caller", (400, "signed_request")),
    ],
)
def test_a_request_without_one_key_of_ours_is_refused(
    headers: Any, query: str, in_path: str, whose: Any, expected: Any
) -> None:
    assert refused(our_key, headers, query, in_path, whose) == expected


def test_with_the_environments_key_nothing_of_the_callers_goes_on() -> None:
    sent = [
        ("authorization", f"Bearer {OURS}"),
        ("x-api-key", OURS),
        ("api-key", OURS),
        ("x-goog-api-key", OURS),
        ("x-tollmeter-key", OURS),
        ("openai-organization", "org-other"),
        ("openai-project", "proj-other"),
        ("content-type", "application/json"),
    ]
    assert without_keys(sent, "environment") == [("content-type", "application/json")]
    assert query_without_key("alt=sse&key=tm&%6bey=tm&keys=2", "environment") == "alt=sse&keys=2"
    assert key_header("bearer", "real") == [("authorization", "Bearer real")]
    assert key_header("x-goog-api-key", "real") == [("x-goog-api-key", "real")]
    assert key_header("none", "real") == key_header("bearer", "") == []


def test_a_key_passed_on_is_left_alone() -> None:
    sent = [("authorization", f"Bearer {THEIRS}"), ("x-tollmeter-key", OURS), ("openai-project", "proj")]
    assert without_keys(sent, "caller") == [sent[0], sent[2]]
    assert query_without_key("key=theirs", "caller") == "key=theirs"


# -------------------------------------------------------------------------------------------------------------- headers


def test_headers_of_a_connection_and_of_a_party_stay() -> None:
    sent = [
        ("host", "proxy.example"),
        ("connection", "keep-alive, X-Private"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "Basic x"),
        ("content-length", "12"),
        ("expect", "100-continue"),
        ("cookie", "session=secret"),
        ("x-forwarded-for", "10.0.0.7"),
        ("forwarded", "for=10.0.0.7"),
        ("x-tollmeter-user", "ann"),
        ("anthropic-version", "2023-06-01"),
        ("user-agent", "OpenAI/Python"),
    ]
    assert to_provider(sent) == [("anthropic-version", "2023-06-01"), ("user-agent", "OpenAI/Python")]
    came = [
        ("content-type", "application/json"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("set-cookie", "__cf_bm=1"),
        ("alt-svc", 'h3=":443"'),
        ("x-tollmeter-cost-nano", "0"),
        ("access-control-allow-origin", "*"),
        ("x-ratelimit-remaining-requests", "9"),
    ]
    assert to_caller(came) == [("content-type", "application/json"), ("x-ratelimit-remaining-requests", "9")]


# ------------------------------------------------------------------------------------------------------------- identity


def test_a_key_says_whose_calls_they_are() -> None:
    scope = scope_of(SERVICE, [("x-tollmeter-operation", "summarise"), ("x-tollmeter-session", "s1"), ("host", "x")])
    assert scope.fields == {
        "org_id": "acme",
        "feature": "summarise",
        "session_id": "s1",
        "tags": {"server_key": "k1"},
    }


def test_a_trusted_caller_names_organisation_user_and_group() -> None:
    said = {"org": "other", "user": "ann", "group": "staff", "tags": "team=search, tier=gold"}
    scope = scope_of(TRUSTED, [(f"x-tollmeter-{name}", value) for name, value in said.items()])
    assert (scope.fields["org_id"], scope.fields["user_id"], scope.fields["group_id"]) == ("other", "ann", "staff")
    assert scope.fields["tags"] == {"team": "search", "tier": "gold", "server_key": "k2"}


@pytest.mark.parametrize("name", ["org", "user", "group"])
def test_no_other_caller_may(name: str) -> None:
    assert refused(scope_of, SERVICE, [(f"x-tollmeter-{name}", "mallory")]) == (403, "identity_not_allowed")
    assert scope_of(SERVICE, [("x-tollmeter-org", "acme")]).fields["org_id"] == "acme"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([("x-tollmeter-usr", "ann")], "unknown_header"),
        ([("x-tollmeter-user", "ann"), ("x-tollmeter-user", "bob")], "several_values"),
        ([("x-tollmeter-operation", "a"), ("x-tollmeter-feature", "b")], "several_values"),
        ([("x-tollmeter-tags", "team")], "bad_tags"),
        ([("x-tollmeter-tags", "=x")], "bad_tags"),
    ],
)
def test_what_nobody_can_mean_is_said(headers: Any, code: str) -> None:
    assert refused(scope_of, TRUSTED, headers) == (400, code)


# ----------------------------------------------------------------------------------------------------------- operations


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/v1/chat/completions", "chat"),
        ("POST", "/V1/Chat/Completions/", "chat"),
        ("POST", "/v1/responses", "responses"),
        ("POST", "/v1/messages", "chat"),
        ("POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent", "chat"),
        ("POST", "/openai/deployments/d/embeddings", "embeddings"),
        ("POST", "/v1/images/generations", "image"),
        ("POST", "/model/x/converse-stream", "chat"),
        ("POST", "/api/chat", "chat"),
        ("POST", "/v1/messages/count_tokens", "free"),
        ("POST", "/v1/moderations", "free"),
        ("GET", "/v1/models", "free"),
        ("GET", "/v1/models/gpt-4o", "free"),
        ("HEAD", "/v1/models", "free"),
        ("GET", "/v1/responses/resp_1", "free"),
        ("GET", "/api/tags", "free"),
        ("POST", "/v1/batches", "other"),
        ("POST", "/v1/messages/batches", "other"),
        ("POST", "/v1/files", "other"),
        ("GET", "/v1/files", "other"),
        ("POST", "/v1/fine_tuning/jobs", "other"),
        ("POST", "/v1/threads/t/runs", "other"),
        ("POST", "/api/pull", "other"),
        ("DELETE", "/v1/models/ft", "other"),
        ("PUT", "/v1/chat/completions", "other"),
        ("GET", "/v1/chat/completions", "other"),
        ("POST", "/v1/models/x:batchGenerateContent", "other"),
    ],
)
def test_what_a_request_does(method: str, path: str, expected: str) -> None:
    assert operation_of(method, path) == expected


def test_what_is_not_metered_needs_the_administrators_word() -> None:
    allowed = load().upstreams["openai"].operations
    for operation in ("chat", "embeddings", "free"):
        check_operation(operation, allowed, "openai")  # type: ignore[arg-type]
    assert refused(check_operation, "other", allowed, "openai") == (403, "operation_not_allowed")
    assert refused(check_operation, "image", ("chat",), "openai") == (403, "operation_not_allowed")


@pytest.mark.parametrize(
    ("kind", "fine"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("multipart/form-data; boundary=x", True),
        ("text/plain", False),
        ("", False),
        ("application/x-www-form-urlencoded", False),
        ("text/plain; x=json", False),
    ],
)
def test_a_model_call_has_a_body_that_can_be_read(kind: str, fine: bool) -> None:
    check_body("free", kind)
    if fine:
        check_body("chat", kind)
    else:
        assert refused(check_body, "chat", kind) == (415, "bad_content_type")


# -------------------------------------------------------------------------------------------------------- configuration


def test_the_known_providers_need_no_file() -> None:
    upstreams = load().upstreams
    assert sorted(upstreams) == ["anthropic", "azure", "bedrock", "gemini", "ollama", "openai"]
    assert upstreams["openai"].secret({"OPENAI_API_KEY": " sk "}) == "sk"
    assert upstreams["gemini"].secret({"GOOGLE_API_KEY": "g"}) == "g"
    assert upstreams["azure"].lacks({}) == ("AZURE_OPENAI_ENDPOINT",)
    assert (
        upstreams["azure"].address({"AZURE_OPENAI_ENDPOINT": "https://me.openai.azure.com/"})
        == "https://me.openai.azure.com"
    )
    assert (
        upstreams["bedrock"].address({"AWS_REGION": "eu-west-1"}) == "https://bedrock-runtime.eu-west-1.amazonaws.com"
    )
    with pytest.raises(ValueError, match="makes no address"):
        upstreams["azure"].address({"AZURE_OPENAI_ENDPOINT": "me.openai.azure.com"})


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("upstreams: {own: {url: ftp://x}}", "own.url: an address is http"),
        ("upstreams: {own: {url: 'https://u:p@x'}}", "own.url: an address has no query"),
        ("upstreams: {own: {url: 'https://x?a=1'}}", "own.url: an address has no query"),
        ("upstreams: {own: {url: 'https://x'}}", "own: key_from: name the variable"),
        ("upstreams: {own: {url: 'https://x', key: mine, auth: none}}", "own.key"),
        ("upstreams: {own: {url: 'https://x', auth: none, operations: [everything]}}", "own.operations.0"),
        ("upstreams: {own: {url: 'https://x', auth: none, colour: red}}", "own.colour: no such key"),
        ("upstreams: {own: {url: 'https://x', auth: none, headers: {'a b': x}}}", "own.headers: a header has"),
        ("upstreams: {Own: {url: 'https://x', auth: none}}", "Own"),
        ("upstreams: []", "a mapping with upstreams"),
        ("[]", "a mapping with upstreams"),
        ("fallback: {clients: {nobody: {model: m}}, operations: {}}", "no upstream nobody"),
        ("fallback: {clients: {anthropic: {model: m}}, operations: {}}", "anthropic has no `chat`"),
        (
            f"{{upstreams: {{own: {{url: http://x, key: caller, chat: /v}}}}, {OWN_CHAIN}}}",
            "own is paid by the caller's key",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, where: str, tmp_path: Any) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(YamlError) as raised:
        load(str(path))
    assert str(path) in str(raised.value)
    assert where in str(raised.value)


def test_a_file_adds_and_replaces(tmp_path: Any) -> None:
    path = tmp_path / "proxy.yaml"
    path.write_text(
        "upstreams:\n"
        "  openai: {url: 'https://eu.api.openai.com', key: caller}\n"
        "  groq: {url: 'https://api.groq.com/openai', key_from: [GROQ_API_KEY], headers: {X-Team: a}, read_s: 0.5}\n",
        encoding="utf-8",
    )
    upstreams = load(str(path)).upstreams
    assert (upstreams["openai"].key, upstreams["groq"].headers, upstreams["groq"].read_s) == (
        "caller",
        {"x-team": "a"},
        0.5,
    )
    assert "anthropic" in upstreams


def test_the_example_is_a_whole_configuration() -> None:
    found = load("examples/proxy.yaml")
    assert found.fallback is not None
    assert found.upstreams["openai-own"].billing_scope == "USER"
    assert found.upstreams["vllm"].lacks({}) == ("VLLM_URL",)
