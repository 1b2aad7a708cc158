"""One of three brokers: what its configuration says besides that of a broker alone, and who is to lead next."""

from tests.cluster import Place, next_order
from tollmeter.embedded.kafka import Node


def test_a_node_listens_on_its_own_ports_and_tells_others() -> None:
    node = Node(2, 11, 12, 13, told_port=21, told_peer_port=22, voters={1: 31, 2: 13, 3: 33})
    lines = node.properties.splitlines()
    assert "node.id=2" in lines
    assert "controller.quorum.voters=1@127.0.0.1:31,2@127.0.0.1:13,3@127.0.0.1:33" in lines
    assert "listeners=PLAINTEXT://127.0.0.1:11,PEERS://127.0.0.1:12,CONTROLLER://127.0.0.1:13" in lines
    assert "advertised.listeners=PLAINTEXT://127.0.0.1:21,PEERS://127.0.0.1:22" in lines
    assert "inter.broker.listener.name=PEERS" in lines
    assert {"offsets.topic.replication.factor=3", "transaction.state.log.min.isr=2"} <= set(lines)


def test_the_next_leader_is_the_replica_behind_this_one() -> None:
    assert next_order(Place(leader=1, replicas=(1, 2, 3), in_sync=(1, 2, 3))) == [2, 3, 1]
    assert next_order(Place(leader=2, replicas=(3, 1, 2), in_sync=(2, 3))) == [3, 1, 2]
    assert next_order(Place(leader=-1, replicas=(3, 1, 2), in_sync=())) == [3, 1, 2], "nobody leads"
