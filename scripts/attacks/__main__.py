"""`./scripts/attack`: every attack on one node, and a line for each on whether anybody else noticed."""

import argparse
import json
import sys
from dataclasses import asdict

import trio

from attacks.attack_run import Outcome, lay
from attacks.catalogue import ATTACKS, fitting
from attacks.target import NoTarget, find
from attacks.witness import GROWTH_BYTES_MAX


def main() -> int:
    told = _arguments()
    if told.list:
        for name, attack in ATTACKS.items():
            print(f"{name:26} {(attack.__doc__ or '').splitlines()[0]}")
        return 0
    try:
        return trio.run(_attack, told)
    except NoTarget as error:
        print(f"scripts/attack: {error}", file=sys.stderr)
        return 2


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/attack", description="Attack a node on this machine, and see whether anybody else notices."
    )
    parser.add_argument("target", nargs="?", help="its multiaddr, with its peer id; or the host:port of its API")
    parser.add_argument("--list", action="store_true", help="say what attacks there are, and end")
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=list(ATTACKS), help="this attack alone; repeatable"
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="lay each attack so often (default: 1)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line; the last one is the summary")
    told = parser.parse_args()
    if not told.list and not told.target:
        parser.error("whom? Say its multiaddr, or the host:port of its API")
    if told.rounds < 1:
        parser.error("--rounds: at least 1")
    return told


async def _attack(told: argparse.Namespace) -> int:
    target = await find(told.target)
    attacks = {name: attack for name, attack in fitting(target).items() if not told.only or name in told.only}
    if not attacks:
        raise NoTarget(f"no API was found beside {target.multiaddr}, and that is what these attacks are for")
    outcomes: list[Outcome] = []
    for _ in range(told.rounds):
        for attack in attacks.values():
            outcomes.append(await lay(attack, target))
            _say(outcomes[-1], told.json)
    levels = [outcome.memory_bytes for outcome in outcomes[len(attacks) - 1 :: len(attacks)]]
    fell = [outcome.name for outcome in outcomes if outcome.fell]
    if levels[-1] - levels[0] > GROWTH_BYTES_MAX:
        fell.append("memory, round after round")
    if told.json:
        print(json.dumps({"attacks": len(outcomes), "fell": fell, "memory_bytes_after_each_round": levels}))
    else:
        print(f"memory after each round: {', '.join(f'{level >> 20} MiB' for level in levels)}")
        print(f"{len(outcomes)} attacks, {len(fell)} not survived" + (f": {', '.join(fell)}" if fell else ""))
    return 1 if fell else 0


def _say(outcome: Outcome, as_json: bool) -> None:
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
