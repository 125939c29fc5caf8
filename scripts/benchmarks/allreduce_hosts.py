"""The all-reduce between two hosts of two workers each, over a link of known speed: time, and bytes that leave a host.

    sudo python scripts/benchmarks/allreduce_hosts.py [--mbit-s 1000] [--mb 20] > hosts.json

The hosts are network namespaces of this machine, joined by a link whose rate `tc tbf` limits; needs root. Compared in
turn are float32 and as many elements of bfloat16, against the bytes that have to leave a host at that rate. The bytes
are what the link counted, headers of Ethernet, IP and TCP included.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys

from allreduce_processes import Processes  # type: ignore[import-not-found]

WORKERS_PER_HOST = 2
ITEM_BYTES = {"float32": 4, "bfloat16": 2}


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def make_hosts(stack: contextlib.ExitStack, mbit_s: int) -> list[str]:
    """Two joined namespaces; returns their names, which are also those of their interfaces."""
    names = [f"hl{os.getpid()}-{number}" for number in range(2)]
    for name in names:
        run("ip", "netns", "add", name)
        stack.callback(run, "ip", "netns", "del", name)
    run("ip", "link", "add", "up0", "netns", names[0], "type", "veth", "peer", "name", "up0", "netns", names[1])
    for number, name in enumerate(names):
        inside = ("ip", "netns", "exec", name)
        run(*inside, "ip", "address", "add", f"10.99.0.{number + 1}/24", "dev", "up0")
        run(*inside, "ip", "link", "set", "up0", "up")
        run(*inside, "ip", "link", "set", "lo", "up")
        shape = ("root", "tbf", "rate", f"{mbit_s}mbit", "burst", "256kb", "latency", "50ms")
        run(*inside, "tc", "qdisc", "add", "dev", "up0", *shape)
    return names


def sent_bytes(host: str) -> int:
    return int(run("ip", "netns", "exec", host, "cat", "/sys/class/net/up0/statistics/tx_bytes"))


def start(hosts: list[str], dtype: str, port: int, stack: contextlib.ExitStack) -> Processes:
    """The workers that sum a vector of one dtype, on both hosts."""
    count = WORKERS_PER_HOST * len(hosts)
    common = {
        "num_workers": count,
        "ports": [port + rank for rank in range(count)],
        "addresses": [f"10.99.0.{rank // WORKERS_PER_HOST + 1}" for rank in range(count)],
        "dtype": dtype,
    }
    commands = [["ip", "netns", "exec", hosts[rank // WORKERS_PER_HOST], sys.executable] for rank in range(count)]
    return Processes("heliostat", commands, [{"rank": rank, **common} for rank in range(count)], stack)


def main() -> None:
    """Run the benchmark and print its JSON."""
    parser = argparse.ArgumentParser(description="Two hosts of two workers over a shaped link")
    parser.add_argument("--mbit-s", type=int, default=1000)
    parser.add_argument("--mb", type=int, default=20, help="size of the vector")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size, warm_up, calls = options.mb * 1_000_000, 3, 3
    times: dict[str, list[float]] = {way: [] for way in ITEM_BYTES}
    sent: dict[str, list[float]] = {way: [] for way in ITEM_BYTES}
    with contextlib.ExitStack() as stack:
        hosts = make_hosts(stack, options.mbit_s)
        groups = {way: start(hosts, way, 20_000 + 100 * number, stack) for number, way in enumerate(ITEM_BYTES)}
        for number in range(options.rounds):
            for way in list(ITEM_BYTES)[:: -1 if number % 2 else 1]:
                before = [sent_bytes(host) for host in hosts]
                times[way].append(statistics.median(groups[way].run(size, calls)[0]))
                moved = max(sent_bytes(host) - count for host, count in zip(hosts, before, strict=True))
                sent[way].append(moved / (calls + warm_up))
    rows = []
    for way, item_bytes in ITEM_BYTES.items():
        least_bytes = size * item_bytes / 4  # 2 (H - 1) / H of the vector with two hosts
        limit_s = least_bytes * 8 / (options.mbit_s * 1e6)
        rows.append(
            {
                "way": way,
                "median_ms": round(statistics.median(times[way]) * 1e3, 2),
                "round_medians_ms": [round(time_s * 1e3, 2) for time_s in times[way]],
                "sent_mb_per_host": round(statistics.median(sent[way]) / 1e6, 2),
                "limit_ms": round(limit_s * 1e3, 2),
                "times_limit": round(statistics.median(times[way]) / limit_s, 3),
            }
        )
        print(rows[-1], file=sys.stderr)
    report = {"benchmark": "allreduce_hosts", "mbit_s": options.mbit_s, "bytes": size}
    json.dump({**report, "rows": rows}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
