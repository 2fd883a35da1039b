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

import numpy as np

from lipcert.bounds.engine import bound
from lipcert.errors import LipcertError
from lipcert.network import Network
from lipcert.network.evaluate import evaluate
from lipcert.proof.refusal import Refused
from lipcert.testing.mutations import FAULTS, MUTATIONS, Case, Fate, fate_of, kill_rate, mutants
from lipcert.testing.mutations import samples as of_samples
from lipcert.testing.zoo import zoo

LOCAL_METHODS = ("intervals", "alpha-crown", "anchored")
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


def sample_cases(network: Network) -> Iterator[of_samples.SamplesCase]:
    """Yield certificates of samples by local methods that serve a network."""
    from lipcert.bounds.local.certify import certify_samples
    from lipcert.bounds.local.registry import find_local
    from lipcert.proof.local import Samples

    x = np.random.default_rng(0).normal(size=(4, *network.input_shape))
    samples = Samples.of(x, evaluate(network, x).reshape(4, -1).argmax(axis=1))
    for method in LOCAL_METHODS if network.nodes[-1].size > 1 else ():
        for eps in (0.1, 0.01):
            try:
                certificate = certify_samples(network, find_local(method), samples, eps).certificate
            except (LipcertError, Refused):
                break
            if certificate is not None:
                yield of_samples.SamplesCase(certificate, network)
                break


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
        for samples_case in sample_cases(network) if network.nodes[0].size < 100 else ():
            for mutant in of_samples.mutants(samples_case, options.seed + number, options.rounds):
                fate = of_samples.fate_of(mutant)
                fates[mutant.kind, fate] += 1
                if fate in FAULTS:
                    print(f"{fate}: {mutant.kind} of {samples_case.certificate.rule} on '{name}'", flush=True)
        print(f"{sum(fates.values()):8d} mutants after '{name}'", file=sys.stderr, flush=True)


def report(fates: Counter[tuple[str, Fate]]) -> None:
    """Print the table."""
    print(f"{'mutation':34s} {'made':>8s} {'rejected':>9s} {'harmless':>9s} {'faults':>7s}")
    for kind in {**MUTATIONS, **of_samples.MUTATIONS}:
        made = {fate: count for (k, fate), count in fates.items() if k == kind}
        faults = sum(count for fate, count in made.items() if fate in FAULTS)
        total = sum(made.values())
        print(f"{kind:34s} {total:8d} {made.get('rejected', 0):9d} {made.get('harmless', 0):9d} {faults:7d}")
    print(f"kill rate of harmful mutants: {kill_rate(fates):.6f} of {sum(fates.values())} mutants")


if __name__ == "__main__":
    sys.exit(main())
