"""Files of policies and members: what is written is read back the same, and a wrong file is refused whole.

Every mistake is one line: file:line: key: what is wrong.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tollmeter.admin.policy_text import PolicyTextError, amount_of, amount_text, limits_text, policy_of
from tollmeter.schemas.escapes import csv_name, csv_name_of, one_line
from tollmeter.schemas.model_rules import ModelRule, ModelScope
from tollmeter.schemas.policy import (
    DEFAULT_WARN_PCT,
    Applies,
    Currency,
    Member,
    Percent,
    Policy,
    ScopeKind,
    TimeZone,
)
from tollmeter.yaml_files import YamlError, YamlFile, read_yaml, words

CSV_COLUMNS = ("org", "kind", "name", "group")
_Item = TypeVar("_Item", Policy, Member, ModelRule)
_Entry = TypeVar("_Entry", bound=BaseModel)


class FileError(ValueError):
    """The file is wrong; the text has one line per mistake."""


def _number_text(value: object) -> object:
    """Take 25 as "25": decimals are text already. True and lists stay what they are, which is wrong."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


NumberText = Annotated[str, BeforeValidator(_number_text)]


class PolicyEntry(BaseModel):
    """One policy as a file has it; amounts in units of the currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org: str
    scope: ScopeKind = "org"
    name: str = ""
    applies: Applies = "pool"
    currency: Currency = "USD"
    timezone: TimeZone = "UTC"
    limits: dict[str, NumberText] = {}
    warn_pct: Annotated[int, Field(strict=True)] = DEFAULT_WARN_PCT
    alert_pcts: tuple[Percent, ...] | None = None
    alert_remaining: NumberText | None = None

    def policy(self) -> Policy:
        """Return the policy. Raises `PolicyTextError`."""
        remaining = None if self.alert_remaining is None else amount_of(self.alert_remaining, "alert_remaining")
        fields = {
            "org_id": self.org,
            "scope": self.scope,
            "name": self.name,
            "applies": self.applies,
            "currency": self.currency,
            "timezone": self.timezone,
            "warn_threshold_pct": self.warn_pct,
            "alert_remaining_micro": remaining,
            **({} if self.alert_pcts is None else {"alert_pcts": self.alert_pcts}),
        }
        try:
            return policy_of(fields, self.limits)
        except PolicyTextError as error:
            raise PolicyTextError(error.text, {"warn_threshold_pct": "warn_pct"}.get(error.key, error.key)) from None


class MemberEntry(BaseModel):
    """One user or group as a file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org: str
    user: str | None = None
    group: str | None = None
    groups: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_name(self) -> Self:
        if (self.user is None) == (self.group is None):
            raise ValueError("give user or group: the name of who is inside the groups")
        return self

    def member(self) -> Member:
        """Return the member. Raises `ValidationError`."""
        kind = "group" if self.user is None else "user"
        return Member.model_validate(
            {"org_id": self.org, "kind": kind, "name": self.user or self.group or "", "groups": self.groups}
        )


class ModelRuleEntry(BaseModel):
    """One rule about models as a file has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    org: str
    scope: ModelScope = "org"
    name: str = ""
    allowed: tuple[str, ...]
    downgrade_to: str = ""

    def rule(self) -> ModelRule:
        """Return the rule. Raises `ValidationError`."""
        return ModelRule.model_validate({"org_id": self.org, **self.model_dump(exclude={"org"})})


class PolicyFile(NamedTuple):
    """What a file of policies holds."""

    policies: list[Policy]
    models: list[ModelRule]


def read_policies(path: Path) -> PolicyFile:
    """Return the policies and the rules about models of a YAML file. Raises `FileError`."""
    file = _read_file(path, ("policies", "models"))
    policies, wrong = _read_entries(file, "policies", PolicyEntry, PolicyEntry.policy, lambda policy: policy.policy_id)
    models, wrong_models = _read_entries(file, "models", ModelRuleEntry, ModelRuleEntry.rule, lambda rule: rule.key)
    if wrong or wrong_models:
        raise FileError("\n".join([*wrong, *wrong_models]))
    return PolicyFile(policies, models)


def read_members(path: Path) -> list[Member]:
    """Return the members of a file, CSV by its ending and else YAML. Raises `FileError`."""
    if path.suffix.lower() == ".csv":
        return _read_csv(path)
    file = _read_file(path, ("members",))
    found, wrong = _read_entries(file, "members", MemberEntry, MemberEntry.member, lambda member: member.member_id)
    if wrong:
        raise FileError("\n".join(wrong))
    return found


def policies_yaml(policies: Iterable[Policy], models: Iterable[ModelRule] = ()) -> str:
    """Return the policies and rules about models as `read_policies` reads them."""
    sections = {"policies": [_policy_entry(policy) for policy in policies]}
    rules = [_rule_entry(rule) for rule in models]
    return _dump({**sections, "models": rules} if rules else sections)


def members_yaml(members: Iterable[Member]) -> str:
    """Return the members as `read_members` reads them."""
    entries = [{"org": member.org_id, member.kind: member.name, "groups": list(member.groups)} for member in members]
    return _dump({"members": entries})


def members_csv(members: Iterable[Member]) -> str:
    """Return a row per member and group; who is in no group has one row with an empty group."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(CSV_COLUMNS)
    for member in members:
        writer.writerows(
            [csv_name(text) for text in (member.org_id, member.kind, member.name, group)]
            for group in member.groups or ("",)
        )
    return out.getvalue()


def _read_file(path: Path, sections: Sequence[str]) -> YamlFile:
    """Return a file that has lists under some of these names, and nothing else."""
    try:
        file = read_yaml(path)
    except YamlError as error:
        raise FileError(str(error)) from None
    body = file.body if isinstance(file.body, dict) else {}
    if not body or not body.keys() <= set(sections) or not all(isinstance(part, list) for part in body.values()):
        names = " or ".join(f"`{name}:`" for name in sections)
        raise FileError(f"{path}:1: expected a list under {names} and nothing else")
    return file


def _read_entries(
    file: YamlFile,
    section: str,
    entry: type[_Entry],
    make: Callable[[_Entry], _Item],
    key: Callable[[_Item], str],
) -> tuple[list[_Item], list[str]]:
    """Return what a section holds, and what is wrong in it, a line per mistake."""
    found: dict[str, _Item] = {}
    problems: list[str] = []
    for place, raw in enumerate(file.body.get(section, ())):
        try:
            item = make(entry.model_validate(raw))
        except (PolicyTextError, ValidationError) as error:
            problems += _problems(file, (section, place), error)
            continue
        if key(item) in found:
            problems.append(file.problem((section, place), f"{key(item)} is given twice"))
        found[key(item)] = item
    return list(found.values()), problems


def _problems(file: YamlFile, where: tuple[str, int], error: PolicyTextError | ValidationError) -> list[str]:
    if isinstance(error, PolicyTextError):
        section, _, kind = error.key.partition(".")  # limits.day/tokens is a key under limits
        return [file.problem((*where, *filter(None, (section, kind))), error.text)]
    return [file.problem((*where, *problem["loc"]), words(problem)) for problem in error.errors(include_url=False)]


def _read_csv(path: Path) -> list[Member]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not lines or tuple(lines[0][1]) != CSV_COLUMNS:
        raise FileError(f"{path}:1: the first line must be {','.join(CSV_COLUMNS)}")
    groups: dict[tuple[str, str, str], list[str]] = {}
    problems: list[str] = []
    for number, cells in lines[1:]:
        if len(cells) != len(CSV_COLUMNS):
            problems.append(f"{path}:{number}: {len(cells)} columns; expected {len(CSV_COLUMNS)}")
            continue
        org, kind, name, group = map(csv_name_of, cells)
        try:
            Member.model_validate({"org_id": org, "kind": kind, "name": name, "groups": (group,) if group else ()})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            problems.append(f"{path}:{number}: {'.'.join(map(str, problem['loc'])) or name}: {words(problem)}")
            continue
        groups.setdefault((org, kind, name), []).extend([group] if group else [])
    if problems:
        raise FileError("\n".join(problems))
    return [
        Member.model_validate({"org_id": org, "kind": kind, "name": name, "groups": tuple(dict.fromkeys(inside))})
        for (org, kind, name), inside in groups.items()
    ]


def _policy_entry(policy: Policy) -> dict[str, Any]:
    entry: dict[str, Any] = {"org": policy.org_id, "scope": policy.scope}
    if policy.name:
        entry["name"] = policy.name
    entry |= {"applies": policy.applies, "currency": policy.currency, "timezone": policy.timezone}
    entry["limits"] = {kind: _Plain(amount) for kind, amount in limits_text(policy).items()}
    entry |= {"warn_pct": policy.warn_threshold_pct, "alert_pcts": list(policy.alert_pcts)}
    if policy.alert_remaining_micro is not None:
        entry["alert_remaining"] = _Plain(amount_text(policy.alert_remaining_micro))
    return entry


def _rule_entry(rule: ModelRule) -> dict[str, Any]:
    name = {"name": rule.name} if rule.name else {}
    instead = {"downgrade_to": rule.downgrade_to} if rule.downgrade_to else {}
    return {"org": rule.org_id, "scope": rule.scope, **name, "allowed": list(rule.allowed), **instead}


class _Plain(str):
    """A number as it is to stand in the file."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes amounts as they are."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_Dumper.add_representer(
    _Plain, lambda dumper, text: dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)
)


def _dump(sections: Mapping[str, Sequence[object]]) -> str:
    document = {section: list(entries) for section, entries in sections.items()}
    text = _yaml(document, as_it_is=True)
    seen = all(one_line(line, len(line)) == line for line in text.split("\n"))
    return text if seen else _yaml(document, as_it_is=False)


def _yaml(document: object, *, as_it_is: bool) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=as_it_is, width=120)
