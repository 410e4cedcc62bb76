"""Settings: their sources, the order of these, and the values that are refused, with the words of the refusal."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.config import values
from node.config.file import ConfigError, refuse_torn
from node.config.load import load, profiles
from node.config.secret import Secret
from node.config.settings import OPTIONS, Settings
from protocols.network_key import Invitation, key_file, phrase

PEER = "12D3KooWQUvJp7uR4hJ2y8xyFwjmCNKw6mSGhBrTnBPdmXzqPyLq"
REPOSITORY = Path(__file__).parents[4]
KEY = bytes(range(32))
PHRASE = phrase(Invitation("lab", KEY))


def refusal(command_line: dict[str, Any] | None = None, environment: dict[str, str] | None = None) -> str:
    """The one line of the error."""
    with pytest.raises(ConfigError) as caught:
        load(command_line or {}, environment or {})
    line = str(caught.value)
    assert "\n" not in line
    return line


def written(folder: Path, text: str) -> str:
    path = folder / "node.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


# -- sources ----------------------------------------------------------------------------------------------------------


def test_a_node_starts_without_any_setting() -> None:
    settings = load({}, {})
    assert settings.backend == "hybrid"
    assert settings.listen == ("/ip4/127.0.0.1/tcp/4001",)
    assert settings.api == "127.0.0.1:8080"
    assert settings.fallback_on_error is None
    assert settings.write_quorum is None
    assert (settings.deadline_ms, settings.replication) == (100, 20)
    assert settings.data_dir == Path.home() / ".bzzz"
    assert settings.name
    assert set(settings.origins.values()) == {"default"}


def test_later_sources_win_and_each_value_keeps_its_origin(tmp_path: Path) -> None:
    path = written(tmp_path, "bzzz: {name: of-file, network: of-file, deadline_ms: 7, replication: 3}")
    settings = load(
        {"config": path, "name": "of-flag"},
        {"BZZZ_NAME": "of-environment", "BZZZ_NETWORK": "of-environment", "BZZZ_DEADLINE_MS": "8"},
    )
    assert (settings.name, settings.network) == ("of-flag", "of-environment")
    assert (settings.deadline_ms, settings.replication) == (8, 3)
    assert settings.origins["name"] == "flag --name"
    assert settings.origins["network"] == "environment BZZZ_NETWORK"
    assert settings.origins["replication"] == f"file {path}: replication"
    assert settings.origins["api"] == "default"


def test_the_environment_names_the_file_and_a_flag_names_another(tmp_path: Path) -> None:
    path = written(tmp_path, "bzzz: {name: here}")
    assert load({}, {"BZZZ_CONFIG": path}).name == "here"
    assert load({"config": path}, {"BZZZ_CONFIG": "/nowhere"}).name == "here"


def test_flags_that_were_not_given_change_nothing() -> None:
    flags = {"config": None, "listen": (), "name": None, "open": None, "discovery_mdns": None}
    assert set(load(flags, {}).origins.values()) == {"default"}


def test_a_variable_that_is_empty_was_not_given() -> None:
    assert load({}, {"BZZZ_DHT_BOOTSTRAP_NODES": "", "BZZZ_API": " "}).api == "127.0.0.1:8080"


def test_nested_and_flat_names_in_a_file_mean_the_same(tmp_path: Path) -> None:
    nested = written(
        tmp_path,
        f"""
        bzzz:
          dht:
            backend: real
            bootstrap_nodes: [/ip4/10.0.0.1/tcp/4001/p2p/{PEER}]
            fallback: {{enabled: false, threshold_errors: 5, backoff_ms: 2s}}
        """,
    )
    settings = load({"config": nested}, {})
    assert (settings.backend, settings.fallback_on_error) == ("real", False)
    assert settings.bootstrap == (f"/ip4/10.0.0.1/tcp/4001/p2p/{PEER}",)
    assert (settings.threshold_errors, settings.backoff_ms) == (5, 2000)
    flat = written(tmp_path, "bzzz: {dht_backend: real, fallback_on_error: false}")
    assert load({"config": flat}, {}).backend == "real"


def test_empty_files_and_sections_say_nothing(tmp_path: Path) -> None:
    for text in ("", "# nothing\n", "bzzz:", "bzzz: {}", "bzzz: {dht: , name: }", "bzzz: {dht: {fallback: }}"):
        assert load({"config": written(tmp_path, text)}, {}).backend == "hybrid"


@pytest.mark.parametrize("path", sorted((REPOSITORY / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_the_profiles_load_by_name_and_as_files(path: Path) -> None:
    of_file = load({"config": str(path)}, {})
    of_name = load({"profile": path.stem}, {})
    assert [row[:2] for row in of_file.rows()] == [row[:2] for row in of_name.rows()]
    assert of_name.notes == ()
    assert of_name.files == (path,)


def test_the_profiles_are_what_their_names_say() -> None:
    backends = {name: load({"profile": name}, {}).backend for name in profiles()}
    assert backends == {
        "development": "mock", "hybrid": "hybrid", "integration": "hybrid", "production": "real", "staging": "hybrid",
    }  # fmt: skip
    assert load({"profile": "production"}, {}).fallback_on_error is False


def test_a_file_wins_over_the_profile_and_the_profile_over_defaults(tmp_path: Path) -> None:
    path = written(tmp_path, "bzzz: {dht: {backend: mock}}")
    settings = load({"config": path}, {"BZZZ_PROFILE": "production"})
    assert (settings.backend, settings.log_format, settings.fallback_on_error) == ("mock", "json", False)
    assert settings.origins["log_format"] == "profile production: log_format"
    assert [one.name for one in settings.files] == ["production.yaml", "node.yaml"]


def test_an_unknown_profile_is_refused_with_the_nearest_one() -> None:
    assert "did you mean staging?" in refusal({"profile": "stagging"})
    assert "development, hybrid, integration, production, staging" in refusal({"profile": "zzz"})


def test_every_option_can_be_set_by_file_and_environment_alike(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("of-file\n", encoding="utf-8")
    swarm_key, join = tmp_path / "swarm.key", tmp_path / "join"
    swarm_key.write_text(key_file(KEY), encoding="ascii")
    join.write_text(PHRASE, encoding="ascii")
    texts = {
        "dht_backend": "mock", "fallback_on_error": "false", "dht_enabled": "no", "use_real_dht": "true",
        "dht_bootstrap_nodes": "/ip4/10.0.0.1/tcp/1,10.0.0.2:8080", "rollout_percent": "12.5", "shadow_percent": "1%",
        "health_check_interval": "10s", "cache_enabled": "no", "cache_ttl": "1m", "use_distributed_resolver": "yes",
        "sync_enabled": "0", "discovery_manual": "no", "discovery_api": "no", "discovery_store": "no",
        "discovery_exchange": "no",
        "discovery_announce": "no", "discovery_dht": "no", "capabilities": "role:planner,label:gpu=a100",
        "data_dir": "/tmp/x", "listen": "/ip4/127.0.0.1/tcp/0", "api": "[::1]:0", "api_token": "t0ken",
        "api_token_file": str(token), "name": "n", "network": "w", "allow": PEER, "deny": PEER,
        "open": "true", "mdns": "off", "announce": "10.0.0.0/8", "no_announce": "172.17.0.1,/ip4/10.0.0.1/tcp/1",
        "log_format": "json", "log_level": "debug", "metrics_enabled": "no",
        "deadline_ms": "1s", "real_deadline_ms": "2000", "replication": "9", "write_quorum": "4",
        "store_deadline_ms": "3s", "store_slow_ms": "400",
        "read_quorum": "3", "read_freshness_ms": "1m", "threshold_errors": "2", "backoff_ms": "10",
        "replica_grace": "90s", "repair_bytes_per_second": "4096",
        "forget_after_hours": "2d", "provider_expiry_hours": "3d", "provider_interval_hours": "1d",
        "connections_kept": "12",
    }  # fmt: skip
    private = {"network_key_file": str(swarm_key), "join": PHRASE, "join_file": str(join)}
    assert set(texts) | set(private) == {option.names[0] for option in OPTIONS}
    for name, value in private.items():
        of_file = load({"config": written(tmp_path, f"bzzz:\n  {name}: {value!r}\n")}, {})
        assert of_file.network_key == load({}, {f"BZZZ_{name.upper()}": value}).network_key == KEY
    del texts["api_token"]
    of_environment = load({}, {f"BZZZ_{name.upper()}": value for name, value in texts.items()})
    lines = "".join(f"  {name}: {value!r}\n" for name, value in texts.items())
    of_file = load({"config": written(tmp_path, f"bzzz:\n{lines}")}, {})
    assert [row[:2] for row in of_environment.rows()] == [row[:2] for row in of_file.rows()]
    assert of_file.api_token == Secret("of-file")
    assert of_file.forget_after_hours == 48
    assert (of_file.replica_grace_ms, of_file.repair_bytes_per_second) == (90_000, 4096)
    assert of_file.bootstrap == ("/ip4/10.0.0.1/tcp/1", "10.0.0.2:8080")
    assert (of_file.cache_ttl_ms, of_file.health_check_interval_ms) == (60_000, 10_000)
    assert (of_file.rollout_percent, of_file.shadow_percent) == (12.5, 1.0)
    assert of_file.read_freshness_ms == 60_000


# -- private networks -------------------------------------------------------------------------------------------------


def test_a_join_phrase_names_the_network_and_lets_a_node_listen_on_all_addresses() -> None:
    settings = load({"join": PHRASE}, {})
    assert (settings.network, settings.network_key) == ("lab", KEY)
    assert settings.listen == ("/ip4/0.0.0.0/tcp/4001",)
    shown = {name: (value, origin) for name, value, origin in settings.rows()}
    assert shown["join"] == ("********", "flag --join")
    assert shown["network"] == ("lab", "flag --join")
    assert PHRASE not in repr(settings)
    assert load({"join": PHRASE, "network": "lab"}, {}).network == "lab"
    assert load({}, {}).network_key is None


def test_contradictions_about_the_network_are_refused_and_no_secret_is_repeated(tmp_path: Path) -> None:
    swarm_key = tmp_path / "swarm.key"
    swarm_key.write_text(key_file(KEY), encoding="ascii")
    assert "for the network 'lab', not 'w'" in refusal({"join": PHRASE, "network": "w"})
    assert "set the same thing" in refusal({"join": PHRASE, "network_key_file": str(swarm_key)})
    assert PHRASE[:-1] not in refusal({"join": PHRASE[:-1]})
    assert "No such file" in refusal({"network_key_file": str(tmp_path / "none")})
    swarm_key.write_bytes(bytes(10_000))
    assert "its first line is not /key/swarm/psk/1.0.0/" in refusal({"network_key_file": str(swarm_key)})
    assert "bzzz network create" in refusal({"listen": "/ip4/0.0.0.0/tcp/4001"})


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "near"),
    [("BZZZ_APY", "BZZZ_API"), ("BZZZ_BACKEND", "BZZZ_DHT_BACKEND"), ("BZZZ_DATADIR", "BZZZ_DATA_DIR")],
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(variable: str, near: str) -> None:
    line = refusal({}, {variable: "x"})
    assert variable in line
    assert f"did you mean {near}?" in line


def test_unknown_variables_of_the_client_are_refused_too_and_foreign_ones_are_not_ours() -> None:
    assert "RUSTLE_NODE" in refusal({}, {"RUSTLE_NODE": "x"})
    load({}, {"PATH": "/bin", "BUZZ": "x", "bzzz_api": "x"})


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bzzz: {apy: x}", "'bzzz: apy' is no setting of a node; did you mean api?"),
        ("bzzz: {dht: {backnd: x}}", "'bzzz: dht.backnd' is no setting of a node; did you mean dht.backend?"),
        ("bzzz: {dht: x}", "'bzzz: dht' is no setting"),
        ("bzz: {api: x}", "'bzz' is unknown at the top"),
        ("api: 127.0.0.1:1", "everything must be under 'bzzz:'"),
        ("bzzz: [a]", "'bzzz:' is not a mapping"),
        ("- a", "is not a mapping"),
        ("bzzz: {name: a, name: b}", "line 1: the key 'name' is there twice"),
        ("bzzz:\n  name: a\n bad", "line 3"),
        ("bzzz: {name: !!python/object/apply:os.system [x]}", "could not determine a constructor"),
        ("bzzz: {? [a] : b}", "is not text"),
        ("bzzz: {name: a\tb: c", "line 1"),
        ("bzzz: {listen: {a: b}}", "listen: {'a': 'b'} is not a list"),
        ("bzzz: {replication: [1]}", "replication: [1] is not a whole number"),
        ("bzzz: {dht_backend: real, dht: {backend: mock}}", "set the same thing"),
        ("bzzz: {name: [1]}", "name: [1] is not text"),
        ("\x00", "node.yaml"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(tmp_path: Path, text: str, part: str) -> None:
    line = refusal({"config": written(tmp_path, text)})
    assert part in line
    assert "node.yaml" in line


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal({"config": str(tmp_path / "none.yaml")})
    assert "directory" in refusal({"config": str(tmp_path)})
    (tmp_path / "latin.yaml").write_bytes(b"bzzz: {name: \xff}")
    assert "not UTF-8" in refusal({"config": str(tmp_path / "latin.yaml")})


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ({"backend": "hybird"}, ["flag --backend", "'hybird' is not one of mock, real, hybrid"]),
        ({"api": "8080"}, ["flag --api", "'8080' is not host:port", "127.0.0.1:8080"]),
        ({"api": "127.0.0.1:99999"}, ["not host:port"]),
        ({"api": "::1:8080"}, ["brackets"]),
        ({"api": "300.1.1.1:80"}, ["not host:port"]),
        ({"api": "127.0.0.1:"}, ["not host:port"]),
        ({"api": ":8080"}, ["not host:port"]),
        ({"api": "a..b:8080"}, ["flag --api", "'a..b' cannot be the host", "1 to 63 letters"]),
        ({"api": "[fe80::1%a..b]:80"}, ["flag --api", "cannot be the host"]),
        ({"listen": ("/ip6/fe80::1%a..b/tcp/1",)}, ["not a multiaddr to listen"]),
        ({"api": f"127.0.0.1:{'1' * 5000}"}, ["not host:port"]),
        ({"listen": ("127.0.0.1:4001",)}, ["flag --listen", "not a multiaddr", "/ip4/127.0.0.1/tcp/4001"]),
        ({"listen": ("/ip4/127.0.0.1/udp/1/quic-v1",)}, ["not a multiaddr to listen"]),
        ({"listen": ("/dns4/example.org/tcp/1",)}, ["not a multiaddr to listen"]),
        ({"listen": (f"/ip4/127.0.0.1/tcp/1/p2p/{PEER}",)}, ["not a multiaddr to listen"]),
        ({"bootstrap": ("10.0.0.1",)}, ["flag --bootstrap", "neither a multiaddr to dial", "host:port"]),
        ({"bootstrap": ("/ip4/10.0.0.1/udp/1",)}, ["flag --bootstrap", "not a multiaddr"]),
        ({"bootstrap": ("/ip4/10.0.0.1/tcp/1/p2p/QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",)}, ["12D3KooW"]),
        ({"bootstrap": ("/dns4/a..b/tcp/1",)}, ["flag --bootstrap", "'a..b' cannot be the host", "1 to 63 letters"]),
        ({"bootstrap": (f"/dns/{'a' * 64}/tcp/1",)}, ["cannot be the host"]),
        ({"bootstrap": ("gr\u00fcn..example:1",)}, ["neither a multiaddr to dial", "cannot be the host"]),
        ({"data_dir": "/tmp/\ud800"}, ["flag --data-dir", "no file name can have"]),
        ({"real_deadline_ms": "9" * 400}, ["out of range"]),
        ({"name": "a b"}, ["flag --name", "is not a name"]),
        ({"name": "x" * 65}, ["is not a name"]),
        ({"data_dir": ""}, ["flag --data-dir", "is not a path"]),
        ({"log_format": "xml"}, ["flag --log-format", "text, json"]),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_source_and_what_to_write(flags: dict[str, Any], parts: list[str]) -> None:
    line = refusal(flags)
    for part in parts:
        assert part in line


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        ({"BZZZ_DEADLINE_MS": "soon"}, "BZZZ_DEADLINE_MS: 'soon' is not a duration; write it like 500ms, 30s or 5m"),
        ({"BZZZ_DEADLINE_MS": "0"}, "out of range"),
        ({"BZZZ_DEADLINE_MS": "-5"}, "not a duration"),
        ({"BZZZ_DEADLINE_MS": "99999999999999999999h"}, "out of range"),
        ({"BZZZ_REPLICATION": "0"}, "out of range"),
        ({"BZZZ_REPLICATION": "2.5"}, "not a whole number"),
        ({"BZZZ_FALLBACK_ON_ERROR": "maybe"}, "neither true nor false"),
        ({"BZZZ_REPLICATION": "2", "BZZZ_WRITE_QUORUM": "3"}, "never reached with replication 2"),
        ({"BZZZ_REPLICATION": "2", "BZZZ_READ_QUORUM": "3"}, "never reached"),
        ({"BZZZ_LISTEN": ","}, "no address to listen on"),
        ({"BZZZ_FORGET_AFTER_HOURS": "0"}, "out of range"),
        ({"BZZZ_ROLLOUT_PERCENT": "101"}, "0 to 100 percent"),
        ({"BZZZ_ROLLOUT_PERCENT": "nan"}, "0 to 100 percent"),
        ({"BZZZ_SHADOW_PERCENT": "few"}, "not a percentage"),
        ({"BZZZ_HEALTH_CHECK_INTERVAL": "30"}, "30 has no unit; write 30s or 30ms"),
        ({"BZZZ_HEALTH_CHECK_INTERVAL": "30ms"}, "out of range"),
        ({"BZZZ_CACHE_TTL": "300000"}, "has no unit"),
        ({"BZZZ_DEADLINE_MS": f"{'9' * 400}d"}, "out of range"),
        ({"BZZZ_FORGET_AFTER_HOURS": "9" * 400}, "out of range"),
        ({"BZZZ_CACHE_TTL": "long"}, "not a duration"),
        ({"BZZZ_USE_REAL_DHT": "perhaps"}, "BZZZ_USE_REAL_DHT: 'perhaps' is neither true nor false"),
    ],
)
def test_impossible_values_are_refused(environment: dict[str, str], part: str) -> None:
    assert part in refusal({}, environment)


def test_the_swarm_listens_beyond_loopback_only_when_it_is_open() -> None:
    line = refusal({"listen": ("/ip4/0.0.0.0/tcp/4001",)})
    assert "not on loopback" in line
    assert "--open" in line
    assert load({"listen": ("/ip4/0.0.0.0/tcp/4001",), "open": True}, {}).listen == ("/ip4/0.0.0.0/tcp/4001",)
    assert load({"open": True}, {}).listen == ("/ip4/0.0.0.0/tcp/4001",)
    assert load({"listen": ("/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0")}, {}).listen[1] == "/ip6/::1/tcp/0"


@pytest.mark.parametrize("api", ["0.0.0.0:8080", "[::]:8080", "192.168.1.2:80", "example.org:80"])
def test_the_api_beyond_loopback_needs_a_token(api: str) -> None:
    line = refusal({"api": api})
    assert "needs a token" in line
    assert "--api-token-file" in line
    assert load({"api": api}, {"BZZZ_API_TOKEN": "t"}).api == api


@pytest.mark.parametrize("api", ["127.0.0.1:0", "127.9.9.9:80", "[::1]:8080", "localhost:8080", "http://127.0.0.1:1/"])
def test_the_api_on_loopback_needs_none(api: str) -> None:
    assert load({"api": api}, {}).api == api.removeprefix("http://").rstrip("/")


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_a_token_never_shows(tmp_path: Path) -> None:
    settings = load({}, {"BZZZ_API_TOKEN": "hunter2"})
    assert settings.api_token is not None
    assert settings.api_token.reveal() == "hunter2"
    for shown in (repr(settings), str(settings), repr(settings.rows()), f"{settings.api_token}"):
        assert "hunter2" not in shown
    assert "hunter2" not in refusal({}, {"BZZZ_API_TOKEN": "hunter2 with spaces"})
    assert "hunter2" not in refusal({"config": written(tmp_path, "bzzz: {api_token: [hunter2]}")})
    path = tmp_path / "token"
    path.write_text("hunter2\nhunter2\n", encoding="utf-8")
    assert "hunter2" not in refusal({"api_token_file": str(path)})


def test_a_token_file_is_read_and_refused_when_it_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret\n", encoding="utf-8")
    assert load({"api_token_file": str(path)}, {}).api_token == Secret("s3cret")
    path.write_text("\n", encoding="utf-8")
    assert "empty" in refusal({"api_token_file": str(path)})
    assert "cannot be read" in refusal({"api_token_file": str(tmp_path / "none")})


def test_a_token_file_on_the_command_line_wins_over_a_token_in_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("of-flag", encoding="utf-8")
    assert load({"api_token_file": str(path)}, {"BZZZ_API_TOKEN": "x"}).api_token == Secret("of-flag")
    assert "set the same thing" in refusal({}, {"BZZZ_API_TOKEN": "x", "BZZZ_API_TOKEN_FILE": str(path)})


# -- what follows from what -------------------------------------------------------------------------------------------


def test_real_with_fallback_set_is_hybrid_and_says_so() -> None:
    settings = load({"backend": "real"}, {"BZZZ_FALLBACK_ON_ERROR": "true"})
    assert settings.backend == "hybrid"
    assert "is hybrid" in settings.notes[0]
    assert load({"backend": "real"}, {}).backend == "real"
    assert load({"backend": "real"}, {"BZZZ_FALLBACK_ON_ERROR": "false"}).notes == ()


def test_the_older_name_for_real_works_is_warned_about_and_loses_to_the_newer_one(tmp_path: Path) -> None:
    settings = load({}, {"BZZZ_USE_REAL_DHT": "true"})
    assert settings.backend == "real"
    assert settings.notes == ("environment BZZZ_USE_REAL_DHT is an older name; write BZZZ_DHT_BACKEND in its place",)
    loses = load({}, {"BZZZ_USE_REAL_DHT": "true", "BZZZ_DHT_BACKEND": "mock"})
    assert loses.backend == "mock"
    assert "not used: environment BZZZ_DHT_BACKEND wins" in loses.notes[0]
    assert load({}, {"BZZZ_USE_REAL_DHT": "false"}).backend == "hybrid"
    assert load({"backend": "mock"}, {"BZZZ_USE_REAL_DHT": "true"}).backend == "mock"
    for text in ("bzzz: {use_real_dht: true, dht_backend: mock}", "bzzz: {dht_backend: mock, use_real_dht: true}"):
        assert load({"config": written(tmp_path, text)}, {}).backend == "mock"
    settings = load({}, {"BZZZ_USE_REAL_DHT": "true", "BZZZ_FALLBACK_ON_ERROR": "true"})
    assert settings.backend == "hybrid"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("bzzz:\n  deadline_ms: 10", "line 2: cut off"),
        ("bzzz:\n", "'bzzz:' is empty"),
        ("bzzz:\n  dht:\n", "'dht:' is empty"),
        ("bzzz:\n  dht:\n    fallback:\n", "'dht.fallback:' is empty"),
        ("bzzz:\n  dht:\n    back\n", "node.yaml"),
    ],
)
def test_a_file_that_looks_half_written_is_known_by_that(tmp_path: Path, text: str, part: str) -> None:
    path = Path(written(tmp_path, text))
    with pytest.raises(ConfigError) as caught:
        refuse_torn(path)
        load({"config": str(path)}, {})
    assert part in str(caught.value)


def test_a_whole_file_is_not_taken_for_a_half_written_one(tmp_path: Path) -> None:
    for path in profiles().values():
        refuse_torn(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        refuse_torn(tmp_path / "none.yaml")


def test_providers_that_are_forgotten_before_they_are_announced_again_are_pointed_out() -> None:
    (note,) = load({}, {"BZZZ_PROVIDER_EXPIRY_HOURS": "20h"}).notes
    assert "provider_interval_hours (22) is not below provider_expiry_hours (20)" in note
    assert load({}, {"BZZZ_PROVIDER_EXPIRY_HOURS": "20h", "BZZZ_PROVIDER_INTERVAL_HOURS": "8h"}).notes == ()


def test_mock_says_what_it_will_not_use() -> None:
    assert "listen" in load({"backend": "mock", "listen": ("/ip4/127.0.0.1/tcp/1",)}, {}).notes[0]
    assert load({"backend": "mock"}, {}).notes == ()


def test_a_shown_duration_says_its_unit_where_its_name_does_not() -> None:
    shown = {name: value for name, value, _ in load({}, {"BZZZ_CACHE_TTL": "90s"}).rows()}
    assert (shown["health_check_interval"], shown["cache_ttl"], shown["deadline_ms"]) == ("30s", "90s", "100")


def test_relative_paths_are_made_absolute() -> None:
    assert load({"data_dir": "x"}, {}).data_dir == Path.cwd() / "x"
    assert load({"data_dir": "~/x"}, {}).data_dir == Path.home() / "x"


def test_rows_show_every_option_once() -> None:
    names = [name for name, _, _ in Settings().rows()]
    assert len(names) == len(set(names))
    assert set(names) == {option.names[0] for option in OPTIONS} - {"api_token_file", "join_file", "use_real_dht"}


@given(st.text(max_size=40), st.sampled_from(OPTIONS))
def test_any_text_in_a_variable_is_a_value_or_one_clear_line(text: str, option: Any) -> None:
    try:
        load({}, {option.variable: text})
    except ConfigError as error:
        assert option.variable in str(error)
        assert len(str(error).splitlines()) == 1


@given(st.integers(0, 10**6))
def test_durations_mean_the_same_in_every_unit(number: int) -> None:
    assert values.milliseconds(number) == values.milliseconds(f"{number}ms") == number
    assert values.milliseconds(f"{number}s") == 1000 * number
    assert values.milliseconds(f"{number}m") == values.milliseconds(f"{60 * number} s")
    assert values.milliseconds(f"{number}.5s") == 1000 * number + 500
    assert values.milliseconds(values.duration(number)) == number
