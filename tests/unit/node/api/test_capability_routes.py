"""`/v1/capabilities` and `/v1/services`: changes and searches over HTTP, refused in the shapes of the API."""

from typing import Any

import pytest

from node.node import Node
from tests.unit.node.api.served import Api

CAPABILITIES, SERVICES = "/v1/capabilities", "/v1/services"


async def data(api: Api, method: str, path: str, **more: Any) -> Any:
    response = await api(method, path, **more)
    assert response.status_code == 200, response.text
    return response.json()["response"]["data"]


async def test_capabilities_are_shown_replaced_and_unset(api: Api) -> None:
    before = await data(api, "GET", CAPABILITIES)
    assert (before["capabilities"], before["set_by"]) == ([], "configuration")
    body = {"capabilities": ["role:critic", "service:embed=http://192.0.2.7:9000"], "revision": before["revision"]}
    changed = await data(api, "PUT", CAPABILITIES, json=body)
    assert (changed["capabilities"], changed["set_by"]) == (body["capabilities"], "run time")
    assert changed == await data(api, "GET", CAPABILITIES)
    assert (await api("PUT", CAPABILITIES, json=body)).status_code == 409
    assert (await data(api, "PUT", CAPABILITIES, json={"capabilities": None}))["set_by"] == "configuration"


@pytest.mark.parametrize(
    "body",
    [
        {}, {"capabilities": "role:x"}, {"capabilities": [1]}, {"capabilities": ["power:x"]}, {"capability": []},
        {"capabilities": ["label:a=\x1b[2J"]}, {"capabilities": [], "revision": 1},
        {"capabilities": [f"role:r{number}" for number in range(65)]},
        {"capabilities": [f"label:l{number}={'x' * 128}" for number in range(64)] + ["service:s=http://" + "x" * 240]},
    ],
)  # fmt: skip
async def test_what_is_no_list_of_capabilities_is_refused(node: Node, api: Api, body: dict[str, Any]) -> None:
    response = await api("PUT", CAPABILITIES, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"].isprintable()
    assert node.capabilities.current == ()


async def test_services_are_found_by_kind_name_and_node(node: Node, api: Api) -> None:
    texts = ["role:critic", "model:llama3@70b", "service:embed=http://192.0.2.7:9000"]
    await data(api, "PUT", CAPABILITIES, json={"capabilities": texts})
    for query, found in (
        ("", sorted(texts)), ("?capability=model", texts[1:2]), ("?capability=llama3", texts[1:2]),
        ("?capability=service:embed", texts[2:]), ("?capability=service:embe", []),
        ("?peer=n1&capability=role", texts[:1]), ("?peer=n2", []), (f"?peer={node.peer_id}", sorted(texts)),
    ):  # fmt: skip
        answer = await data(api, "GET", SERVICES + query)
        assert [offer["capability"] for offer in answer["services"]] == found, query
        assert answer["total"] == len(found)
    (offer,) = (await data(api, "GET", f"{SERVICES}?capability=service"))["services"]
    assert (offer["kind"], offer["name"], offer["endpoint"]) == ("service", "embed", "http://192.0.2.7:9000")
    assert offer["node"]["own"]
    limited = await data(api, "GET", f"{SERVICES}?limit=1")
    assert (len(limited["services"]), limited["total"]) == (1, 3)
