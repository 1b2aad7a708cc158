"""Reads and makes access rules at the broker, where it has an authorizer; aiokafka has the messages, no calls."""

from collections.abc import Sequence

from aiokafka.errors import for_code
from aiokafka.protocol.admin import (
    CreateAclsRequest_v1,
    CreateAclsRequestStruct,
    DescribeAclsRequest_v1,
    DescribeAclsRequestStruct,
)
from aiokafka.protocol.api import Request

from tollmeter.broker.access_rules import Operation, Resource, Rule
from tollmeter.broker.layout import ProvisionError
from tollmeter.broker.make import Admin

_ANY, _LITERAL, _ALLOW, _EVERY_HOST = 1, 3, 3, "*"
_RESOURCES: dict[Resource, int] = {"topic": 2, "group": 3, "cluster": 4}
_OPERATIONS: dict[Operation, int] = {
    "Read": 3,
    "Write": 4,
    "Create": 5,
    "Alter": 7,
    "Describe": 8,
    "DescribeConfigs": 10,
}
_DISABLED = 54
"""The broker has no authorizer."""


class NoAuthorizerError(ProvisionError):
    """The broker enforces no rules of access at all."""


class _Describe(Request[DescribeAclsRequestStruct]):  # type: ignore[misc]  # aiokafka is read untyped
    API_KEY = DescribeAclsRequest_v1.API_KEY

    def build(self, request_struct_class: type[DescribeAclsRequestStruct]) -> DescribeAclsRequestStruct:
        return DescribeAclsRequest_v1(_ANY, None, _ANY, None, None, _ANY, _ANY)


class _Create(Request[CreateAclsRequestStruct]):  # type: ignore[misc]  # aiokafka is read untyped
    API_KEY = CreateAclsRequest_v1.API_KEY

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules

    def build(self, request_struct_class: type[CreateAclsRequestStruct]) -> CreateAclsRequestStruct:
        return CreateAclsRequest_v1([_wire(rule) for rule in self._rules])


def _wire(rule: Rule) -> tuple[int, str, int, str, str, int, int]:
    kind, operation = _RESOURCES[rule.resource], _OPERATIONS[rule.operation]
    return kind, rule.name, _LITERAL, rule.principal, _EVERY_HOST, operation, _ALLOW


async def present(admin: Admin) -> set[Rule]:
    """Return the rules at the broker, as far as they are of our kinds.

    Raises `NoAuthorizerError` where there is none, `KafkaError` where this user may not ask.
    """
    answer = await admin._send_request(_Describe())
    if answer.error_code == _DISABLED:
        raise NoAuthorizerError("the broker has no authorizer: it enforces no rules of access")
    if answer.error_code:
        raise for_code(answer.error_code)(answer.error_message or "")
    kinds = {number: kind for kind, number in _RESOURCES.items()}
    operations = {number: operation for operation, number in _OPERATIONS.items()}
    return {
        Rule(kinds[kind], name, principal, operations[operation])
        for kind, name, pattern, acls in answer.resources
        for principal, host, operation, permission in acls
        if kind in kinds and operation in operations
        if (pattern, host, permission) == (_LITERAL, _EVERY_HOST, _ALLOW)
    }


async def make(admin: Admin, rules: Sequence[Rule]) -> None:
    """Make rules; repeating it changes nothing. Raises `ProvisionError`, `KafkaError`."""
    controller = admin._client.cluster.controller
    node = None if controller is None else controller.nodeId
    answer = await admin._send_request(_Create(rules), node)
    for rule, (code, text) in zip(rules, answer.creation_responses, strict=True):
        if code == _DISABLED:
            raise NoAuthorizerError("the broker has no authorizer: it enforces no rules of access")
        if code:
            raise ProvisionError(
                f"the rule for {rule.principal} on {rule.name} was refused: {for_code(code).__name__} {text}"
            )
