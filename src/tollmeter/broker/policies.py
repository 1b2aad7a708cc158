"""Policies and members are data on the log: the compacted topic keeps them, a control record in the partition acts.

A change is done when both are acknowledged; ClickHouse gets its copy with the next checkpoint of WATCH. Changes are
checked before the first is written; repeating an interrupted command completes it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from tollmeter.broker.client import BrokerAway, kafka_consumer, kafka_producer, read_all
from tollmeter.broker.layout import Layout, ProvisionError, read_layout
from tollmeter.broker.make import Producer
from tollmeter.broker.unreadable import MEMBER, POLICY, Unreadable, readable, text_of, unreadable
from tollmeter.schemas import topics
from tollmeter.schemas.access import EVERYONE
from tollmeter.schemas.control import Control, MemberDelete, MemberSet, PolicyDelete, PolicySet
from tollmeter.schemas.envelope import control_record
from tollmeter.schemas.policy import MEMBER_SCOPES, Adjustment, Member, Policy
from tollmeter.schemas.secrets import NO_KEY, holds_secret
from tollmeter.schemas.spend import Spend
from tollmeter.settings import Settings
from tollmeter.streams.rules.limits.policies import GroupCycleError, Groups

_HISTORY = b"history:"
_Value = TypeVar("_Value")


class PolicyError(Exception):
    """The change was refused or could not be made durable; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The policies by their ids, and the membership; and what nobody obeys, since it cannot be read."""

    policies: Mapping[str, Policy] = field(default_factory=dict)
    groups: Groups = field(default_factory=Groups)
    unreadable: Sequence[Unreadable] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the compacted topic (None = deleted) and the control record that tells WATCH, if it is to know."""

    org_id: str
    key: bytes
    value: bytes | None
    control: PolicySet | PolicyDelete | MemberSet | MemberDelete | None = None


def policy_set(policy: Policy) -> Change:
    """Return the change that puts a policy in force, in place of any of the same id. Raises `PolicyError`.

    A policy named "*" would limit only whoever is called so, and looks like one for everybody: it is refused.
    """
    if policy.name == EVERYONE and policy.scope in MEMBER_SCOPES:
        raise PolicyError(
            f'"*" is no {policy.scope}: what limits each {policy.scope} that has no policy of its own is the default, '
            "without a name and for each_member (--default)"
        )
    value = policy.model_dump_json().encode()
    return Change(policy.org_id, POLICY + policy.policy_id.encode(), value, PolicySet(policy=policy))


def policy_delete(org_id: str, policy_id: str) -> Change:
    """Return the change that ends a policy; ending an absent one is no error."""
    return Change(org_id, POLICY + policy_id.encode(), None, PolicyDelete(policy_id=policy_id))


def member_set(member: Member) -> Change:
    """Return the change that gives a user or group its groups, in place of any that it had."""
    value = member.model_dump_json().encode()
    return Change(member.org_id, MEMBER + member.member_id.encode(), value, MemberSet(member=member))


def member_delete(org_id: str, member_id: str) -> Change:
    """Return the change that takes a member out of all groups; an absent one is no error."""
    return Change(org_id, MEMBER + member_id.encode(), None, MemberDelete(member_id=member_id))


def write(settings: Settings, changes: Sequence[Change]) -> None:
    """Return when all changes are on the log, where WATCH evaluates them at once. Raises `PolicyError`.

    A group that would be inside itself is refused before anything is written.
    """
    if any(isinstance(change.control, MemberSet) for change in changes):
        check(read_rules(settings), changes)
    if any(isinstance(change.control, PolicySet) and not change.control.policy.adjustments for change in changes):
        changes = _carried(read_rules(settings), changes)
    if changes:
        _reach(settings, _write(settings, changes))


def tell(settings: Settings, entries_: Mapping[bytes, bytes]) -> None:
    """Return when WATCH was told of the policies and members among entries that the topic has. Raises `PolicyError`."""
    changes = [policy_set(policy) for policy in readable(entries_, Policy)]
    changes += [member_set(member) for member in readable(entries_, Member)]
    if changes:
        _reach(settings, _write(settings, changes))


def _carried(rules: Rules, changes: Iterable[Change]) -> list[Change]:
    """Let limits that are set anew stay otherwise for as long as they were to be."""

    def carried(change: Change) -> Change:
        known = rules.policies.get(change.control.policy.policy_id) if isinstance(change.control, PolicySet) else None
        if known is None or not isinstance(change.control, PolicySet):
            return change
        policy = change.control.policy
        keys = {limit.key for limit in policy.all_limits}
        kept = tuple(one for one in known.adjustments if one.limit in keys)
        return policy_set(policy.model_copy(update={"adjustments": policy.adjustments or kept}))

    return [carried(change) for change in changes]


def adjust(settings: Settings, policy: Policy, made: Sequence[Adjustment]) -> None:
    """Return when these adjustments are in force, and in the history that nothing deletes. Raises `PolicyError`.

    Those of the policy that are over are left out of it, and amounts of limits that are put back.
    """
    now_ms = min(one.since_ms for one in made)
    ended = {one.limit for one in made if one.puts_back}
    active = [one for one in policy.adjustments if one.until_ms > now_ms and not (one.amount and one.limit in ended)]
    changed = policy.model_copy(update={"adjustments": (*active, *made)})
    keys = [_HISTORY + f"{policy.policy_id}:{one.since_ms}:{one.limit}".encode() for one in made]
    values = [one.model_dump_json().encode() for one in made]
    told = [Change(policy.org_id, key, value) for key, value in zip(keys, values, strict=True)]
    write(settings, [*told, policy_set(changed)])


def history(settings: Settings, org_id: str) -> list[tuple[str, Adjustment]]:
    """Return policy id and adjustment of all that was ever adjusted in an organisation, oldest first."""
    found = [
        (key.removeprefix(_HISTORY).decode().rsplit(":", 2)[0], Adjustment.model_validate_json(value))
        for key, value in entries(settings).items()
        if key.startswith(_HISTORY)
    ]
    mine = org_id.replace("%", "%25").replace("/", "%2F")
    return sorted((one for one in found if one[0].split("/")[0] == mine), key=lambda one: one[1].since_ms)


def check(rules: Rules, changes: Iterable[Change]) -> None:
    """Raise `PolicyError` when these changes would put a group inside itself. `rules` must not be used afterwards."""
    for change in changes:
        if isinstance(change.control, MemberSet):
            rules.groups.put(change.control.member)
        elif isinstance(change.control, MemberDelete):
            rules.groups.delete(change.control.member_id)
    try:
        rules.groups.check()
    except GroupCycleError as error:
        raise PolicyError(f"{error}: take one of these steps out") from None


def read_rules(settings: Settings) -> Rules:
    """Return the policies and members in force. Raises `PolicyError`."""
    return rules_of(entries(settings))


def rules_of(found: Mapping[bytes, bytes]) -> Rules:
    """Return the policies and members among the entries of the topic, and what of them cannot be read."""
    ordered = sorted(readable(found, Policy), key=lambda policy: policy.policy_id)
    policies = {policy.policy_id: policy for policy in ordered}
    return Rules(policies, Groups(readable(found, Member)), unreadable(found))


def discard(settings: Settings, key: str) -> None:
    """Return when a record that cannot be read is gone, and WATCH was told so. Raises `PolicyError`."""
    found = entries(settings)
    gone = next((one for one in unreadable(found) if one.key == key), None)
    if gone is None:
        known = any(text_of(one) == key for one in found)
        said = "can be read: there is a command that deletes it" if known else "is no record of the topic"
        raise PolicyError(f"{key} {said}; 'tollmeter policy list' names those that cannot be read")
    raw = next(one for one in found if text_of(one) == key)
    name = key.partition(":")[2]
    controls: dict[bytes, Control] = {
        POLICY: PolicyDelete(policy_id=name),
        MEMBER: MemberDelete(member_id=name),
    }
    told = next((control for prefix, control in controls.items() if raw.startswith(prefix)), None)
    _reach(settings, _write(settings, [Change(gone.org_id, raw, None, told)]))


def entries(settings: Settings) -> dict[bytes, bytes]:
    """Return every entry of the compacted topic by its key. Raises `PolicyError`."""
    found: dict[bytes, bytes] = {}

    def take(key: bytes, value: bytes | None) -> None:
        if value is None:
            found.pop(key, None)
        else:
            found[key] = value

    _reach(settings, _read(settings, topics.POLICIES, take))
    return found


def unread(settings: Settings) -> list[Unreadable]:
    """Return what of the rules cannot be read and holds for nobody. Raises `PolicyError`."""
    return unreadable(entries(settings))


def read_spend(settings: Settings) -> dict[str, Spend]:
    """Return what guards are told of every limited scope, by key: of two rows the higher stamp. Raises `PolicyError`.

    The topic is compacted and several owners may have written: only the stamps say which value is right.
    """
    found: dict[str, Spend] = {}

    def take(key: bytes, value: bytes | None) -> None:
        if value is None or not key.startswith(b"spend/"):
            return
        with suppress(ValidationError):  # a newer form: guards of this version do not read it either
            row = Spend.model_validate_json(value)
            if row.key not in found or row.stamp >= found[row.key].stamp:
                found[row.key] = row

    _reach(settings, _read(settings, topics.SPEND, take))
    return found


def set_policy(settings: Settings, policy: Policy) -> None:
    """Return when the policy is on the log. Raises `PolicyError`."""
    write(settings, [policy_set(policy)])


def delete_policy(settings: Settings, org_id: str, policy_id: str) -> None:
    """Return when the deletion is on the log; deleting an absent policy is no error. Raises `PolicyError`."""
    write(settings, [policy_delete(org_id, policy_id)])


def list_policies(settings: Settings) -> list[Policy]:
    """Return the policies in force, in order of their ids. Raises `PolicyError`."""
    return list(read_rules(settings).policies.values())


def _reach(settings: Settings, work: Coroutine[object, object, _Value]) -> _Value:
    try:
        return asyncio.run(work)
    except (KafkaError, OSError) as error:
        raise PolicyError(str(BrokerAway(settings, error))) from None
    except ProvisionError as error:
        raise PolicyError(str(error)) from None


async def _write(settings: Settings, changes: Sequence[Change]) -> None:
    if any(change.value and holds_secret(change.value.decode()) for change in changes):
        raise PolicyError(NO_KEY)
    layout = await read_layout(settings)
    async with kafka_producer(settings) as producer:
        topic = settings.topic(topics.POLICIES)
        try:
            await _acknowledged(
                [await producer.send(topic, change.value, key=change.key, partition=0) for change in changes]
            )
            told = [(change.org_id, change.control) for change in changes if change.control is not None]
            await _acknowledged([await _send_control(producer, settings, layout, *one) for one in told])
        except KafkaError as error:
            raise PolicyError(
                f"{settings.kafka} failed while changes were written ({type(error).__name__}): some may be in force; "
                "repeating the command completes them"
            ) from None


async def _send_control(
    producer: Producer, settings: Settings, layout: Layout, org_id: str, control: Control
) -> Awaitable[object]:
    value, headers = control_record(control)
    partition = topics.org_partition(org_id, layout.priced)
    sent: Awaitable[object] = await producer.send(
        settings.topic(topics.PRICED), value, partition=partition, headers=headers
    )
    return sent


async def _acknowledged(sent: Sequence[Awaitable[object]]) -> None:
    await asyncio.gather(*sent)


async def _read(settings: Settings, topic: str, take: Callable[[bytes, bytes | None], None]) -> None:
    """Give key and value of every record of a compacted topic to `take`, in their order."""
    tp = TopicPartition(settings.topic(topic), 0)
    async with kafka_consumer(settings) as consumer:
        if tp.topic not in await consumer.topics():  # asked for its end it would be waited for
            raise PolicyError(f"topic {tp.topic} does not exist on {settings.kafka}: run 'tollmeter setup'")
        async for record in read_all(consumer, [tp]):
            if record.key is not None:
                take(record.key, record.value)
