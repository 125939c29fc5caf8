"""Which way the bytes of a large all-reduce go when several workers share a host: pure decisions.

Flat: every worker sums its slice of the vector, and every other worker sends it its nodes. Local first: the workers of
a host sum their nodes as far as the tree allows, each for one slice per worker of the host; then those of equal place
on all hosts sum these slices among themselves; then a host's workers hand them to each other. Both follow the same
tree, so the bits are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..tree import Layout, Node, common_node, subtrees
from .slices import cut, num_bytes, whole

# What one more round over the network costs, and a byte at ten gigabits a second. Only the order of magnitude counts.
ROUND_S = 100e-6
BYTE_S = 0.8e-9
FLAT_ROUNDS, LOCAL_FIRST_ROUNDS = 2, 4

Expected = Sequence[Sequence[Node]]


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where the workers of a group are: for each host the ranks on it, in order."""

    ranks: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, names: Sequence[str]) -> Hosts:
        """Group the workers by the name of their host, `names[rank]`."""
        by_name: dict[str, list[int]] = {}
        for rank, name in enumerate(names):
            by_name.setdefault(name, []).append(rank)
        return cls(tuple(map(tuple, by_name.values())))

    @property
    def allow_local_first(self) -> bool:
        """Whether there are several hosts with equally many workers, more than one."""
        return len(self.ranks) > 1 and len({len(ranks) for ranks in self.ranks}) == 1 and len(self.ranks[0]) > 1

    def place(self, rank: int) -> tuple[int, int]:
        """Return the number of a worker's host and the worker's place on it."""
        for host, ranks in enumerate(self.ranks):
            if rank in ranks:
                return host, ranks.index(rank)
        raise ValueError(f"worker {rank} is on none of the hosts {self.ranks}")


def host_nodes(hosts: Hosts, expected: Expected) -> tuple[tuple[tuple[Node, ...], ...], ...]:
    """Return for each host the groups of nodes that its workers can sum without those of others."""
    owners: Mapping[Node, int] = {
        node: host for host, ranks in enumerate(hosts.ranks) for rank in ranks for node in expected[rank]
    }
    found: list[list[tuple[Node, ...]]] = [[] for _ in hosts.ranks]
    for nodes in subtrees(tuple(owners), lambda node: owners[node]):
        found[owners[nodes[0]]].append(nodes)
    return tuple(map(tuple, found))


def merged_nodes(groups: Sequence[tuple[Node, ...]]) -> tuple[Node, ...]:
    """Return the node of the tree that stands for the sum of each group."""
    return tuple(common_node(nodes) for nodes in groups)


def flat_bytes(hosts: Hosts, expected: Expected, like: Layout) -> int:
    """Return how many bytes leave the busiest host in a flat all-reduce."""
    sizes = [num_bytes(like, part) for part in cut(like, len(expected))]

    def sent(ranks: Sequence[int]) -> int:
        abroad = sum(size for rank, size in enumerate(sizes) if rank not in ranks)
        return sum(len(expected[rank]) * abroad + sizes[rank] * (len(expected) - len(ranks)) for rank in ranks)

    return max(map(sent, hosts.ranks))


def local_first_bytes(hosts: Hosts, expected: Expected, like: Layout) -> int:
    """Return how many bytes leave the busiest host if its workers sum among themselves first."""
    size, num_hosts = num_bytes(like, whole(like)), len(hosts.ranks)
    most = max(len(groups) for groups in host_nodes(hosts, expected))
    return (most + 1) * size * (num_hosts - 1) // num_hosts


def local_first_pays(hosts: Hosts, expected: Expected, like: Layout) -> bool:
    """Decide between the two, by rounds over the network and bytes that leave a host."""
    if not hosts.allow_local_first:
        return False
    flat_s = FLAT_ROUNDS * ROUND_S + flat_bytes(hosts, expected, like) * BYTE_S
    local_first_s = LOCAL_FIRST_ROUNDS * ROUND_S + local_first_bytes(hosts, expected, like) * BYTE_S
    return local_first_s < flat_s
