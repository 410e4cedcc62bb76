"""`./scripts/attack`: runs every attack on one node, and prints for each whether honest clients noticed."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

import trio

from attacks.attack_run import AttackOutcome, run_attack
from attacks.catalogue import ATTACKS, fitting
from attacks.target import NoTarget, find
from attacks.witness import GROWTH_BYTES_MAX


def main() -> int:
    arguments = _arguments()
    if arguments.list:
        for name, attack in ATTACKS.items():
            print(f"{name:26} {(attack.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        return trio.run(_attack, arguments)
    except NoTarget as error:
        print(f"scripts/attack: {error}", file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/attack", description="Attack a node on this machine, and check whether honest clients notice."
    )
    parser.add_argument("target", nargs="?", help="its multiaddr, with its peer id; or the host:port of its API")
    parser.add_argument("--list", action="store_true", help="list the attacks, and end")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=list(ATTACKS), help="run only this attack; repeatable"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="run each attack N times (default: 1)")
    parser.add_argument(
        "--scale", type=int, default=1, metavar="N", help="make long histories N times as long (default: 1)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the last one is the summary")
    arguments = parser.parse_args()
    if not arguments.list and not arguments.target:
        parser.error("a target is needed: its multiaddr, or the host:port of its API")
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    if arguments.scale < 1:
        parser.error("--scale: at least 1")
    return arguments


async def _attack(arguments: argparse.Namespace) -> int:
    target = await find(arguments.target)
    only = arguments.only
    attacks = {name: attack for name, attack in fitting(target).items() if not only or name in only}
    if not attacks:
        raise NoTarget(f"these attacks need the API of {target.multiaddr}, and none was found")
    outcomes: list[AttackOutcome] = []
    for _ in range(arguments.rounds):
        for attack in attacks.values():
            outcomes.append(await run_attack(attack, target, scale=arguments.scale))
            _print(outcomes[-1], arguments.json)
    levels = [outcome.memory_bytes for outcome in outcomes[len(attacks) - 1 :: len(attacks)]]
    failures = not_survived(outcomes, levels)
    if arguments.json:
        print(json.dumps({"attacks": len(outcomes), "fell": failures, "memory_bytes_after_each_round": levels}))
    else:
        print(f"memory after each round: {', '.join(f'{level >> 20} MiB' for level in levels)}")
        print(
            f"{len(outcomes)} attacks, {len(failures)} not survived" + (f": {', '.join(failures)}" if failures else "")
        )
    return 1 if failures else 0


def not_survived(outcomes: Sequence[AttackOutcome], levels: Sequence[int]) -> list[str]:
    """The attacks that the target did not survive. `levels` is its memory in bytes after each round."""
    names = [outcome.name for outcome in outcomes if outcome.fell]
    if levels[-1] - levels[0] > GROWTH_BYTES_MAX:
        names.append("memory, round after round")
    return names


def _print(outcome: AttackOutcome, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(outcome)), flush=True)
        return
    waits = (outcome.visit_seconds, outcome.ping_seconds, outcome.health_seconds)
    print(
        f"{'FELL' if outcome.fell else 'ok':5} {outcome.name:26} {outcome.seconds:5.1f} s  "
        f"visit {waits[0]:.2f} ping {waits[1]:.2f} health {waits[2]:.2f} s  "
        f"fds {outcome.descriptors_more:+d}  memory {outcome.memory_more_bytes / 2**20:+.0f} MiB "
        f"(peak {outcome.memory_peak_bytes / 2**20:.0f})" + (f"\n      {outcome.fell}" if outcome.fell else ""),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
