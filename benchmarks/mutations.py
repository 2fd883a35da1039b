"""Mutates certificates of many rules and networks, and prints what the checker made of the mutants.

    python -m benchmarks.mutations [--rounds 40] [--seed 0] [--data FOLDER]

For each kind of mutation: how many were made, rejected and harmless, and how many faults. The exit code is 1 if there
is any fault. With --data, certificates of a small real network are mutated too, once each: minutes for the exact
engine.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from lipcert.bounds.engine import bound
from lipcert.errors import LipcertError
from lipcert.network import Network
from lipcert.testing.mutations import FAULTS, MUTATIONS, Case, Fate, fate_of, kill_rate, mutants
from lipcert.testing.zoo import zoo

METHODS = ("product", "absolute", "gershgorin", "eclipse-fast", "lip-lt", "lipsdp", "compositional")
REAL = ("models/marabou/mnist2x10.onnx",)


def cases(network: Network) -> Iterator[Case]:
    """Yield certificates of all methods that serve a network."""
    for method in METHODS:
        for norm in ("l1", "l2", "linf"):
            for quantity in ("output", "margins"):
                try:
                    yield Case(bound(network, method, norm, quantity=quantity).certificate, network)
                except LipcertError:
                    continue


def main() -> int:
    """Run and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40, help="mutants of each kind and certificate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of real networks")
    options = parser.parse_args()
    networks = dict(zoo())
    if options.data is not None:
        from lipcert.network.readers import load

        networks |= {name: load(options.data / name) for name in REAL}
    fates: Counter[tuple[str, Fate]] = Counter()
    try:
        run(networks, options, fates)
    finally:  # what was found until an interruption too
        report(fates)
    return int(any(fate in FAULTS for _, fate in fates))


def run(networks: dict[str, Network], options: argparse.Namespace, fates: Counter[tuple[str, Fate]]) -> None:
    """Mutate all certificates of all networks, and count the fates."""
    for number, (name, network) in enumerate(networks.items()):
        for case in cases(network):
            rounds = options.rounds if network.nodes[0].size < 100 else 1
            for mutant in mutants(case, options.seed + number, rounds):
                fate = fate_of(mutant)
                fates[mutant.kind, fate] += 1
                if fate in FAULTS:
                    print(f"{fate}: {mutant.kind} of {case.certificate.rule} on '{name}'", flush=True)
        print(f"{sum(fates.values()):8d} mutants after '{name}'", file=sys.stderr, flush=True)


def report(fates: Counter[tuple[str, Fate]]) -> None:
    """Print the table."""
    print(f"{'mutation':34s} {'made':>8s} {'rejected':>9s} {'harmless':>9s} {'faults':>7s}")
    for kind in MUTATIONS:
        made = {fate: count for (k, fate), count in fates.items() if k == kind}
        faults = sum(count for fate, count in made.items() if fate in FAULTS)
        total = sum(made.values())
        print(f"{kind:34s} {total:8d} {made.get('rejected', 0):9d} {made.get('harmless', 0):9d} {faults:7d}")
    print(f"kill rate of harmful mutants: {kill_rate(fates):.6f} of {sum(fates.values())} mutants")


if __name__ == "__main__":
    sys.exit(main())
