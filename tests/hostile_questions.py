"""`python -m tests.hostile_questions 100000 --seed 3`: hostile questions to one guard, each beside what must come out.

What must come out is written down with each value here (which address lies in the blocked network, which name is which
model), never computed by the guard's own rules. The guard knows blocks, a spent budget, a tight one, and rules about
models; the shipped price book.
"""

import argparse
import json
import math
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.guard_rows import NOON, USD, Time, access, as_of, feed, layout, member, policy, real_book, spend
from tollmeter.producers.client.client import UsageProducer
from tollmeter.producers.guard.decision import Allow, Deny
from tollmeter.schemas.access import Block
from tollmeter.schemas.model_rules import ModelRule
from tollmeter.schemas.policy import Member, Policy

MINI, SONNET = "gpt-4o-mini", "claude-sonnet-4-5"
MODELS: list[tuple[Any, str, str]] = [
    *((name, "openai", MINI) for name in (MINI, "GPT-4o-Mini", " gpt-4o-mini\t", "openai/gpt-4o-mini")),
    *((name, "openai", MINI) for name in ("gpt-4o-mini-2024-07-18", "gpt-4o-mini-20240718")),
    *(
        (name, "openai", "other")
        for name in ("gpt-4o", "gpt-4o-2024-08-06", "o1", "gpt-4o-mini-audio-preview", "gpt-5")
    ),
    *((name, "openai", "other") for name in ("ft:gpt-4o-mini-2024-07-18:acme::x", "gpt-4o-minі", "gpt-4o-mini\x00")),
    *((name, "openrouter", MINI) for name in ("openai/gpt-4o-mini", "OPENAI/gpt-4o-mini", "openai/gpt-4o-mini:online")),
    *((name, "openrouter", "other") for name in ("openai/gpt-4o-mini:latest", "openrouter/auto")),
    *((name, "anthropic", SONNET) for name in (SONNET, "claude-sonnet-4-5-20250929")),
    *((name, "anthropic", "other") for name in ("claude-opus-4-1", "claude-3-haiku-20240307")),
    *((f"{place}anthropic.{SONNET}-20250929-v1:0", "aws", SONNET) for place in ("", "us.", "eu.", "global.")),
    ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws", SONNET),
    ("us.anthropic.claude-opus-4-1-20250805-v1:0", "aws", "other"),
    ("claude-sonnet-4-5@20250929", "google", SONNET),
    *((name, "google", "other") for name in ("models/gemini-2.5-pro", "publishers/google/models/gemini-2.5-flash")),
    *((name, "azure", "other") for name in ("prod-chat", "gpt-4o-mini-but-not")),
    *((value, "openai", "none") for value in ("", "  ", None, "x" * 257, MINI + " " * 300 + "o1")),
    *((value, "openai", "other") for value in (5, b"gpt-4o-mini", [MINI], {"model": MINI}, math.nan, True)),
]
"""Name, provider, and which model that is by hand: one of two that rules allow, another, or none that can be read."""
INSIDE = ("203.0.113.9", "::ffff:203.0.113.9", " 203.0.113.200:443", "[2001:db8:9::1]:80", "2001:DB8:9:0::7%eth0")
OUTSIDE = ("198.51.100.7", "2001:db8:8::1", "", None, "nonsense", "fe80::1%eth0", 7, "300.1.1.1", "\ud800")
COUNTS = (None, 0, 1, 100, -1, -(10**9), 10**9, 10**40, "100000", "1e400", math.inf, -math.inf, math.nan, "x", True, [])
TEXTS = ("", "a", "ann", " ann", "\ud800", "x" * 5_000, "a\x00b", "\x1b[2J", None, 5, b"\xff", ["dev"], {"a": 1})

FIELDS = (
    "agent",
    "tags",
    "feature",
    "session_id",
    "request_id",
    "trace_id",
    "prompt",
    "counted",
    "api_host",
    "service",
)


class Odd:
    """A value whose own code fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __len__(self) -> int:
        raise RuntimeError("no length")


@dataclass
class Found:
    """What came out."""

    decisions: int = 0
    escapes: list[str] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    events: int = 0
    leaked: int = 0
    nanoseconds: list[int] = field(default_factory=list)

    @property
    def refusals(self) -> int:
        return sum(count for answer, count in self.answers.items() if answer != "allowed")

    @property
    def lawful(self) -> bool:
        """Whether nothing escaped, nothing stays reserved, and every refusal is an event."""
        return not self.escapes and not self.leaked and self.events == self.refusals

    def document(self) -> dict[str, object]:
        took = sorted(self.nanoseconds)
        at = (
            {f"p{share}_us": round(took[len(took) * share // 100 - 1] / 1_000, 1) for share in (50, 99)} if took else {}
        )
        told = {"decisions": self.decisions, "escapes": len(self.escapes), "leaked": self.leaked, "events": self.events}
        told["refusals"] = self.refusals
        return {**told, **at, "answers": dict(self.answers.most_common())}


RULES = (
    ModelRule(org_id="ruled", scope="user", name="ann", allowed=(MINI,)),
    ModelRule(org_id="ruled", scope="group", name="dev", allowed=(MINI, SONNET), downgrade_to=MINI),
    ModelRule(org_id="ruled", scope="api_key", name="k-r", allowed=(SONNET,)),
)
TIGHT_NANO = USD // 2


class World:
    """One guard, and what it must say."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self.producer = UsageProducer(service="hostile", mode="memory")
        self._time = Time()
        self.guard = self._time.guard(producer=self.producer, max_usd=800.0)
        networks = (
            ("client_ip", "203.0.113.0/24"),
            ("client_ip", "2001:db8:9::/48"),
        )
        feed(self.guard, layout(), real_book(), member(Member(org_id="ruled", name="cem", groups=("dev",))))
        feed(self.guard, policy(Policy(org_id="broke", daily_limit_micro=1_000_000)))
        feed(self.guard, policy(Policy(org_id="tight", daily_limit_micro=TIGHT_NANO // 1_000)))
        for scope, name in (("user", "bob"), ("api_key", "k-b"), *networks):
            block = Block(org_id="acme", scope=scope, name=name, reason="leak")  # type: ignore[arg-type]
            feed(self.guard, access(block))
        for rule in RULES:
            assert self.guard.apply("policies", rule.key, rule.model_dump_json().encode())
        feed(self.guard, spend(USD, org="broke"), as_of(NOON * 1_000, org="broke"))
        self._stamp, self._held = 1, 0
        self.found = Found()

    def run(self, decisions: int) -> Found:
        """Ask so many questions; return what came out."""
        for number in range(decisions):
            if number % 500 == 0:
                self._begin_anew()
            self._one()
            if len(self.producer.events) > 1_000:
                self.found.events += len(self.producer.events)
                self.producer.events.clear()
        self.found.events += len(self.producer.events)
        self.found.leaked = self.guard._known.accounts.in_flight
        self.found.decisions += decisions
        return self.found

    def _begin_anew(self) -> None:
        """Let everything that was settled be counted, as nothing: the tight budget is whole again."""
        self._time.pass_(10)
        self._stamp += 1
        now_ms = self._time.wall // 1_000_000
        feed(self.guard, spend(0, TIGHT_NANO, org="tight", stamp=self._stamp))
        for org in ("tight", "broke", "acme", "ruled"):
            feed(self.guard, as_of(now_ms, org=org, stamp=self._stamp))
        self._held = 0

    def _one(self) -> None:
        draw = self._draw
        model, provider, meant = draw.choice(MODELS)
        org = draw.choice(("acme", "broke", "tight", "ruled", "free"))
        about = self._about(org)
        about |= {"org": org, "provider": draw.choice((provider, provider.upper(), f" {provider} "))}
        started = time.thread_time_ns()  # of this thread alone: what others do meanwhile is not the check's
        decided = self.guard.check(model, **about)
        self.found.nanoseconds.append(time.thread_time_ns() - started)
        self.found.answers[decided.error if isinstance(decided, Deny) else "allowed"] += 1
        wrong = self._wrong(decided, about, meant)
        if wrong:
            self.found.escapes.append(f"{wrong}: {model!r} {about!r} -> {decided!r}"[:400])
        if isinstance(decided, Allow):
            self._finish(decided, org)

    def _about(self, org: str) -> dict[str, Any]:
        """Return the fields of a question; who calls is drawn so that rules are met often."""
        draw = self._draw
        user = draw.choice(("ann", "bob", "cem", "dee", "\ud800", "x" * 400, None, 5, ""))
        about: dict[str, Any] = {"user": user, "api_key_id": draw.choice(("k-b", "k-r", "k", "", None))}
        about["client_ip"] = draw.choice(INSIDE if draw.random() < 0.1 else OUTSIDE)
        about["groups"] = draw.choice(((), ["dev"], "dev", ["dev", "\ud800", None], None, 7, ["x" * 999]))
        about["billing_scope"] = draw.choice(("ORG", "ORG", "UNKNOWN", "USER", "user", None, "\ud800"))
        about["models"] = draw.choice(((), (), (), [MINI], ["o1"], [""], "o1", [None], 7))
        about["downgrades"] = draw.choice((True, True, False, 1, "yes", None))
        for name in ("prompt_chars", "prompt_tokens", "max_output_tokens", "answers"):
            if draw.random() < 0.6:
                about[name] = draw.choice(COUNTS)
        for name in (
            "agent",
            "tags",
            "feature",
            "session_id",
            "request_id",
            "trace_id",
            "prompt",
            "counted",
            "api_host",
        ):
            if draw.random() < 0.2:
                about[name] = Odd() if draw.random() < 0.1 else draw.choice(TEXTS)
        return about

    def _wrong(self, decided: Allow | Deny, about: dict[str, Any], meant: str) -> str:
        """Return which law a decision breaks."""
        org, user, key = about["org"], about["user"], about["api_key_id"]
        own = about["billing_scope"] == "USER"
        if org == "acme" and (user == "bob" or key == "k-b" or about["client_ip"] in INSIDE):
            return "" if isinstance(decided, Deny) and decided.error == "blocked" else "a blocked caller"
        if org == "broke" and not own and isinstance(decided, Allow):
            return "a spent budget"
        if org == "ruled":
            wrong = self._against_rules(decided, about, meant)
            if wrong:
                return wrong
        if isinstance(decided, Allow):
            if decided.stale:
                return "a fault of the guard"
            if (decided.est_nano or 0) < 0 or min(decided.reservation.amounts) < 0:
                return "a credit"
            if org == "tight" and not own and self._held + (decided.est_nano or 0) > TIGHT_NANO:
                return "more than the tight budget"
        return ""

    @staticmethod
    def _against_rules(decided: Allow | Deny, about: dict[str, Any], meant: str) -> str:
        groups = about["groups"]
        in_group = about["user"] == "cem" or groups == "dev" or (isinstance(groups, list) and "dev" in groups)
        allowed = [{SONNET}] if about["api_key_id"] == "k-r" else []
        if about["billing_scope"] != "USER":
            allowed += [{MINI}] if about["user"] == "ann" else [{MINI, SONNET}] if in_group else []
        further = about["models"]
        others = {"o1": "other", "": "none", MINI: MINI, None: "none", 7: "other"}
        named = [others[one] for one in (further if isinstance(further, list | tuple) else [further])]
        served = MINI if isinstance(decided, Allow) and decided.downgrade_to == MINI else meant
        if isinstance(decided, Deny):
            broken = any(one not in names for names in allowed for one in (meant, *named))
            return "" if broken or decided.error != "model_not_allowed" else "an allowed model was refused"
        if any(one not in names for names in allowed for one in (served, *named)):
            return "a model that is not allowed"
        if decided.downgrade_to and (
            about["downgrades"] is not True or decided.downgrade_to != MINI or served == meant
        ):
            return "a downgrade that nobody asked for"
        return ""

    def _finish(self, allow: Allow, org: str) -> None:
        """Settle or release, however often; what is settled at less is held at less."""
        how, est = self._draw.random(), allow.est_nano or 0
        if how < 0.6:
            allow.reservation.settle()
        elif how < 0.8:
            allow.reservation.settle(est // 2)
            est //= 2
        else:
            allow.reservation.release()
            est = 0
        if self._draw.random() < 0.1:
            allow.reservation.settle(10**15)
            allow.reservation.release()
        if org == "tight" and allow.reservation.bounds:
            self._held += est


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile_questions", description=__doc__)
    parser.add_argument("decisions", type=int)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    found = World(chosen.seed).run(chosen.decisions)
    sys.stdout.write(json.dumps(found.document()) + "\n" + "".join(f"{one}\n" for one in found.escapes[:20]))
    return 0 if found.lawful else 1


if __name__ == "__main__":
    sys.exit(main())
