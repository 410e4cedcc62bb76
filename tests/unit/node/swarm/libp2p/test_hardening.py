"""What ends or blocks a plain libp2p 0.8.1 host: each point, the file that closes it here, and the test that proves it.

Each test named here does to this project's host what ends, blocks or misleads a plain one.
`tests/live/test_plain_libp2p.py` does to a plain host what S1 to S7 and S9 describe, and some of the rest. When a
release of libp2p fixes a point, its row shows which code can go. S8 is closed because libp2p's `KadDHT` is not used:
the DHT is the project's own, and no stream of that protocol is served.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[5]


class Row(NamedTuple):
    point: str
    closed_in: tuple[str, ...]
    by: tuple[str, ...]
    """Tests, as 'file::name'."""


HOST, HARD = "live/test_host.py", "live/test_host_hardening.py"
CONNECTIONS, STREAMS = "live/test_connection_limits.py", "live/test_stream_limits.py"
FRAMES = "live/test_frames.py"
LIBRARY, PUBSUB, POLICY = "live/test_libp2p_release.py", "live/test_pubsub.py", "live/test_peer_policy.py"

ROWS = (
    # What breaks an unhardened host.
    Row(
        "S1: 250 connections in its life, and then no more",
        ("node/swarm/libp2p/host.py", "node/swarm/libp2p/swarm_adapter.py"),
        (f"{HARD}::test_connections_that_ended_leave_room_for_others",),
    ),
    Row(
        "S2: a stream handler that raises ends the host",
        ("node/swarm/libp2p/peer_connection.py",),
        (f"{HARD}::test_a_stream_handler_that_raises_costs_its_stream",),
    ),
    Row(
        "S3: 24 bytes that are not UTF-8 end the host",
        ("node/swarm/libp2p/multistream.py",),
        (
            f"{HARD}::test_a_bad_opening_of_a_stream_costs_that_stream",
            f"{HARD}::test_garbage_on_the_port_harms_no_peer",
        ),
    ),
    Row(
        "S4: a garbage RPC, a bad from_id or key, or a validator that raises ends the host",
        ("node/swarm/libp2p/gossipsub.py", "node/swarm/libp2p/gossipsub_parts.py"),
        (
            f"{PUBSUB}::test_garbage_costs_its_stream_and_then_its_connection_and_no_other_peer",
            f"{PUBSUB}::test_validators_and_handlers_that_raise_refuse_and_end_nothing",
        ),
    ),
    Row(
        "S5: plaintext and secio are accepted",
        ("node/swarm/libp2p/upgrade.py",),
        (f"{HARD}::test_nothing_but_noise_secures_a_connection",),
    ),
    Row(
        "S6: a frozen peer is never noticed, disconnecting it can hang, and a mute listener holds a dial for minutes",
        ("node/swarm/libp2p/yamux.py", "node/swarm/libp2p/dial.py", "protocols/policy/failure_detector.py"),
        (
            f"{HOST}::test_a_frozen_peer_is_given_up_without_any_traffic_to_it",
            f"{HOST}::test_a_frozen_peer_can_be_disconnected_at_once",
            f"{HOST}::test_a_listener_that_stays_mute_fails_the_dial_in_time",
            f"{HOST}::test_a_killed_peer_is_gone_at_once",
            f"{POLICY}::test_a_frozen_peer_is_suspect_at_its_first_missed_deadline_and_trusted_at_its_first_answer",
        ),
    ),
    Row(
        "S7: a write that is cancelled under backpressure corrupts the connection",
        ("node/swarm/libp2p/yamux_writer.py",),
        (f"{HARD}::test_a_write_that_is_cancelled_under_backpressure_leaves_the_connection_whole",),
    ),
    Row(
        "S8: one frozen peer makes KadDHT wait for 10 to 20 s, and 12 idle streams disable it",
        ("node/dht/hedged_query.py", "node/dht/real.py", "node/swarm/libp2p/host_adapter.py"),
        (
            "sim/test_real.py::test_an_indeterminate_write_is_not_shown_until_the_same_envelope_is_sent_again",
            "sim/test_real.py::test_every_answer_of_the_real_backend_is_true",
            "sim/test_hybrid.py::test_no_call_exceeds_its_deadline_when_all_peers_freeze_during_it",
            f"{STREAMS}::test_the_streams_of_a_peer_for_a_protocol_are_bounded_and_other_peers_have_theirs",
        ),
    ),
    Row(
        "S9: one address a peer is dialled, and a dead one blocks the peer for a minute",
        ("node/swarm/libp2p/dial.py",),
        (
            f"{HOST}::test_dead_addresses_do_not_keep_a_living_one_from_winning",
            f"{LIBRARY}::test_an_address_that_was_refused_or_forgotten_is_dialled_again_at_once",
        ),
    ),
    # Construction and life.
    Row(
        "the connector dials everything in the peer store",
        ("node/swarm/libp2p/swarm_adapter.py",),
        (f"{LIBRARY}::test_only_the_host_dials",),
    ),
    Row(
        "leaving run() leaks sockets, and its peers still see it connected",
        ("node/swarm/libp2p/host.py", "node/swarm/libp2p/listen.py"),
        (f"{HOST}::test_the_end_closes_every_socket_and_disconnects_every_peer",),
    ),
    Row(
        "SO_REUSEPORT: a second process on the same port starts without an error",
        ("node/swarm/libp2p/listen.py",),
        (f"{HOST}::test_a_port_in_use_is_an_error_even_if_its_holder_shares_it",),
    ),
    Row(
        "0.0.0.0 stays literal in what is announced",
        ("node/swarm/libp2p/listen.py",),
        (
            f"{HOST}::test_addresses_are_concrete_and_name_the_peer",
            f"{LIBRARY}::test_libp2p_announces_concrete_addresses_alone",
        ),
    ),
    Row(
        "two hosts that dial each other at once have two connections",
        ("node/swarm/libp2p/peer_links.py",),
        (f"{HOST}::test_dialling_each_other_at_once_leaves_one_connection_to_both",),
    ),
    Row(
        "after 256 streams that were not closed, new_stream waits for ever",
        ("node/swarm/libp2p/yamux.py", "node/swarm/libp2p/host_adapter.py"),
        (f"{STREAMS}::test_own_streams_are_given_up_when_the_other_side_is_silent",),
    ),
    Row(
        "a peer that does not read absorbs 4 MiB, and then writes fail after 5 s",
        ("node/swarm/libp2p/lanes.py", "node/swarm/libp2p/yamux_stream.py"),
        (
            f"{FRAMES}::test_a_full_queue_refuses_frames_and_loses_none_that_it_took",
            f"{PUBSUB}::test_a_peer_that_does_not_read_costs_a_bounded_queue_and_then_its_stream",
        ),
    ),
    Row(
        "the peer store forgets addresses after two minutes, and a refused dial blocks the peer",
        ("node/swarm/libp2p/dial.py", "node/services/membership/neighbours.py"),
        (
            f"{LIBRARY}::test_an_address_that_was_refused_or_forgotten_is_dialled_again_at_once",
            f"{POLICY}::test_a_node_finds_its_members_after_a_restart_by_its_own_address_book",
        ),
    ),
    Row(
        "the identity of a peer is kept after it left, and not asked for again",
        ("node/swarm/libp2p/swarm_adapter.py",),
        (f"{LIBRARY}::test_nothing_is_kept_of_a_peer_that_left",),
    ),
    Row(
        "a thousand peers with addresses make it forget its own key, which ends identify",
        ("node/swarm/libp2p/swarm_adapter.py",),
        (f"{LIBRARY}::test_many_peers_with_addresses_do_not_make_a_host_forget_its_own_key",),
    ),
    Row(
        "the resource manager denies a peer that connects often, and then all peers",
        ("node/swarm/limits.py", "node/swarm/libp2p/host.py"),
        (
            f"{CONNECTIONS}::test_a_peer_may_reconnect_without_limit",
            f"{CONNECTIONS}::test_an_idle_connection_is_closed_when_there_are_too_many",
        ),
    ),
    Row(
        "normal events are logged as errors, and a root handler is installed",
        ("node/swarm/libp2p/release.py",),
        (f"{HARD}::test_libp2p_logs_no_normal_events_and_installs_no_handler",),
    ),
    Row(
        "there is no allow list or deny list of peer ids",
        ("node/swarm/peer_policy.py", "node/swarm/libp2p/host.py"),
        (f"{CONNECTIONS}::test_the_lists_hold_at_once_and_both_ways",),
    ),
    Row(
        "250 half-open connections fill the inbound limiter",
        ("node/swarm/libp2p/host.py",),
        (
            f"{CONNECTIONS}::test_a_thousand_idle_connections_and_three_hundred_half_open_ones_delay_no_other_peer",
            f"{HARD}::test_half_open_connections_make_room_for_a_new_one",
        ),
    ),
    Row(
        "connect() takes 251 ms flat",
        ("node/swarm/libp2p/dial.py",),
        (f"{LIBRARY}::test_a_dial_on_loopback_takes_less_than_one_of_the_library",),
    ),
    Row(
        "a malformed identity that is pushed is accepted silently, again and again",
        ("node/swarm/libp2p/host_adapter.py",),
        (f"{LIBRARY}::test_a_pushed_identity_is_kept_and_a_malformed_one_is_an_offence",),
    ),
    # GossipSub.
    Row(
        "messages are dropped silently: over 10 a second, over 32 in a queue or a channel",
        ("node/swarm/libp2p/gossipsub.py", "node/swarm/libp2p/gossipsub_parts.py"),
        (f"{PUBSUB}::test_a_burst_of_a_hundred_arrives_whole_and_once_two_hosts_further",),
    ),
    Row(
        "messages after a restart are taken for repetitions",
        ("node/swarm/libp2p/gossipsub.py",),
        (f"{PUBSUB}::test_messages_after_a_restart_are_not_taken_for_repetitions",),
    ),
    # All of it.
    Row(
        "another release may fix, rename or break any of it",
        ("node/swarm/libp2p/release.py",),
        (f"{HARD}::test_another_release_of_libp2p_is_refused",),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.point.split(":")[0])
def test_each_point_names_existing_files_and_tests(row: Row) -> None:
    assert row.closed_in and row.by
    for path in row.closed_in:
        assert (ROOT / path).is_file()
    for named in row.by:
        path, _, name = named.partition("::")
        tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}


def test_nothing_uses_the_dht_of_libp2p() -> None:
    """S8 stays closed as long as this holds, too."""
    for path in (ROOT / "node").rglob("*.py"):
        assert "libp2p.kad_dht" not in path.read_text(encoding="utf-8")
