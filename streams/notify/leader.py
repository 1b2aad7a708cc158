"""One instance is in charge of all alerts, the others wait: caps, digests and storms are then exact.

Alerts are edges, a few a minute: one process carries them easily. When it ends, Kafka hands everything to another.
"""

from collections.abc import Iterable, Mapping

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata


class OneInCharge(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is read untyped
    """Gives every partition to one member: the one that has them already, else the first by name."""

    name = "tollmeter-one"
    version = 0
    _mine = b""

    @classmethod
    def assign(
        cls, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Return the assignment of each member."""
        chosen = max(sorted(members), key=lambda member: members[member].user_data)
        wanted = sorted({topic for metadata in members.values() for topic in metadata.subscription})
        everything = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in wanted]
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, everything if member == chosen else [], b"")
            for member in members
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Tell the leader of the group whether this member was in charge."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), cls._mine)

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember whether this process is in charge."""
        cls._mine = b"\x01" if any(partitions for _, partitions in assignment.assignment) else b""
