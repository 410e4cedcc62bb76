"""All attacks, by name, the outermost layer first."""

from attacks import (
    in_crowds,
    on_api,
    on_muxing,
    on_negotiation,
    on_noise,
    on_store,
    on_streams,
    on_the_port,
    on_topics,
    on_writes,
)
from attacks.siege import Attack, name_of
from attacks.target import Target

_SWARM = (on_the_port, on_negotiation, on_noise, on_muxing, on_streams, on_topics, on_store, on_writes, in_crowds)

ATTACKS: dict[str, Attack] = {name_of(attack): attack for module in (*_SWARM, on_api) for attack in module.ATTACKS}


def fitting(target: Target) -> dict[str, Attack]:
    """Those that this target can be attacked with: the API's only where one is known."""
    without_api = {name_of(attack) for attack in on_api.ATTACKS} if target.api is None else set()
    return {name: attack for name, attack in ATTACKS.items() if name not in without_api}
