"""All attacks by name, the outermost layer first."""

from attacks import (
    many_peers,
    on_api,
    on_histories,
    on_kad,
    on_members,
    on_muxing,
    on_negotiation,
    on_noise,
    on_store,
    on_streams,
    on_tcp,
    on_topics,
    on_writes,
)
from attacks.attack_run import Attack, name_of
from attacks.target import AttackTarget

_SWARM = (
    on_tcp, on_negotiation, on_noise, on_muxing, on_streams, on_topics, on_store, on_members, on_writes, on_histories,
    on_kad, many_peers,
)  # fmt: skip

ATTACKS: dict[str, Attack] = {name_of(attack): attack for module in (*_SWARM, on_api) for attack in module.ATTACKS}


def fitting(target: AttackTarget) -> dict[str, Attack]:
    """The attacks for this target: those on the API only where an API is known."""
    without_api = {name_of(attack) for attack in on_api.ATTACKS} if target.api is None else set()
    return {name: attack for name, attack in ATTACKS.items() if name not in without_api}
