"""TCP: an IPv6 address with a zone is dialled by the interface that the zone names."""

import socket

import pytest

from node.swarm.libp2p.tcp import connect


@pytest.mark.parametrize("is_number", [False, True])
async def test_a_zone_is_an_interface_by_name_or_number(is_number: bool) -> None:
    number, name = socket.if_nameindex()[0]
    with socket.socket(socket.AF_INET6) as listener:
        try:
            listener.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"this machine has no IPv6: {error}")
        listener.listen()
        connection = await connect(
            socket.AF_INET6, f"::1%{number if is_number else name}", listener.getsockname()[1]
        )  # fmt: skip
        connection.abort()


async def test_a_zone_that_is_no_interface_is_why_the_dial_failed() -> None:
    with pytest.raises(OSError, match="interface"):
        await connect(socket.AF_INET6, "fe80::1%nothing9", 1)
