"""js-libp2p nodes among themselves, with our validator: what the tests beside our nodes build on."""

import json
from pathlib import Path
from typing import Any

from tests.interop.conftest import StartJs
from tests.until import block_until

CID = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "envelopes.json").read_text("utf-8"))
ENVELOPE: dict[str, Any] = VECTORS["envelopes"][0]
FORGED = VECTORS["forged"][0]["encoded"]
"""An envelope for the same address as `ENVELOPE`, whose signature is not that of its author."""


def test_js_nodes_put_and_get_an_envelope_and_refuse_a_forged_one(start_js: StartJs) -> None:
    one, two, three = (start_js(name) for name in ("one", "two", "three"))
    for other in (two, three):
        other.do("connect", address=one.address)
    block_until(lambda: {two.peer_id, three.peer_id} <= set(one.do("table")["peers"]), what="one knows the others")
    block_until(lambda: one.peer_id in two.do("table")["peers"], what="two knows one")
    block_until(lambda: one.peer_id in three.do("table")["peers"], what="three knows one")

    forged = two.do("put", key=ENVELOPE["key"], value=FORGED)
    assert one.do("get", key=ENVELOPE["key"])["value"] is None, forged

    def two_puts() -> bool:
        return one.peer_id in two.do("put", key=ENVELOPE["key"], value=ENVELOPE["encoded"])["stored"]

    def three_names_two_as_provider() -> bool:
        return two.peer_id in {each["peer"] for each in three.do("findProviders", cid=CID)["providers"]}

    block_until(two_puts, what="two puts an envelope at one")
    block_until(lambda: three.do("get", key=ENVELOPE["key"])["value"] == ENVELOPE["encoded"], what="three gets it")
    block_until(lambda: three.do("findPeer", peer=two.peer_id)["found"], what="three finds two, through one if need be")
    block_until(lambda: not two.do("provide", cid=CID)["failures"], what="two sends a provider record")
    block_until(three_names_two_as_provider, what="one has taken the provider record, which nothing answers")
