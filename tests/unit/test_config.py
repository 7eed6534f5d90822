"""`eir.config`: the shipped file is the defaults, and every mistake is an error that names its key."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest

from eir import config
from eir.config import Config, ConfigError, Country
from support.node import write_config

SHIPPED = Path(__file__).parents[2] / "config"
KEY = re.compile(r"(\w+) = ")


def load(directory: Path, text: str) -> Config:
    """Loads this configuration, with a sound country."""
    path = write_config(directory)
    path.write_text('node.country = "test"\n' + text)
    return config.load(path)[0]


class TestShipped:
    def test_it_lists_every_key_with_exactly_its_default(self) -> None:
        shipped = tomllib.loads((SHIPPED / "eir.toml").read_text())
        assert shipped == msgspec.json.decode(msgspec.json.encode(Config()))

    def test_every_country_is_sound_and_has_every_key(self) -> None:
        keys = set(Country.__struct_fields__)
        for profile in (SHIPPED / "countries").glob("*.toml"):
            assert set(tomllib.loads(profile.read_text())) == keys, profile.name

    def test_it_is_sound(self) -> None:
        settings, country = config.load(SHIPPED / "eir.toml")
        assert settings == Config()
        assert (country.name, country.grey_days, country.home_mccs) == ("Kazakhstan", 30, (401,))

    @pytest.mark.parametrize("name", ["eir.toml", "countries/kz.toml", "countries/lab.toml"])
    def test_every_key_has_a_comment(self, name: str) -> None:
        explained = False
        for line in (SHIPPED / name).read_text().splitlines():
            if KEY.match(line):
                # Keys that follow one another share the comment above them; the country's name needs none.
                assert explained or line.startswith("name = "), line
            else:
                explained = line.startswith("#") or (explained and line.startswith("[["))

    def test_an_empty_file_is_the_defaults(self, tmp_path: Path) -> None:
        settings = load(tmp_path, "")
        assert msgspec.structs.replace(settings, node=Config().node) == Config()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[nodes]", "nodes"),
        ("node.colour = 1", "node.colour"),
        ("diameter.peers = [{origin_host = '*', networks = ['::1/128'], port = 1}]", r"diameter.peers[0].port"),
        ("diameter.watchdog = '30'", "diameter.watchdog"),
        ("diameter.watchdog = 5.9", "diameter.watchdog"),
        ("diameter.watchdog = nan", "diameter.watchdog"),
        ("diameter.cer_timeout = 0", "diameter.cer_timeout"),
        ("diameter.cer_timeout = inf", "diameter.cer_timeout"),
        ("diameter.drain_timeout = -1", "diameter.drain_timeout"),
        ("diameter.max_connections = 0", "diameter.max_connections"),
        ("diameter.max_connections = 9_999_999_999_999_999_999", "diameter.max_connections"),
        ("diameter.max_events = 63", "diameter.max_events"),
        ("diameter.listen = []", "diameter.listen"),
        ("diameter.listen = '127.0.0.1:3868'", "diameter.listen"),
        ("diameter.listen = ['localhost:3868']", "diameter.listen"),
        ("diameter.listen = ['127.0.0.1']", "diameter.listen"),
        ("diameter.listen = ['127.0.0.1:65536']", "diameter.listen"),
        ("diameter.listen = ['::1:3868']", "diameter.listen"),
        ("diameter.listen = ['[fe80::1%lo]:3868']", "diameter.listen"),
        ("diameter.listen = ['']", "diameter.listen"),
        ("diameter.peers = [{origin_host = '*'}]", "diameter.peers[0]: no networks"),
        ("diameter.peers = [{origin_host = '*', networks = []}]", "diameter.peers[0]: no networks"),
        ("diameter.peers = [{networks = ['::1/128']}]", "diameter.peers[0]: Object missing required field"),
        ("diameter.peers = [{origin_host = '*', networks = ['::1/128'], role = 'proxy'}]", "diameter.peers[0].role"),
        ("diameter.peers = [{origin_host = '*', networks = ['::1/128'], connections = 0}]", "diameter.peers[0].conn"),
        (
            "diameter.peers = [{origin_host = '*', connect = ['10.0.0.1:3868']}]",
            "diameter.peers[0]: connect needs a name",
        ),
        ("diameter.peers = [{origin_host = 'a.test', connect = ['dra.test:3868']}]", "diameter.peers[0]: 'dra.test"),
        ("diameter.peers = [{origin_host = 'a.test', connect = ['10.0.0.1']}]", "diameter.peers[0]: '10.0.0.1' is not"),
        ("diameter.peers = [{origin_host = '*', networks = ['::1/128'], tls = 'required'}]", "diameter.peers[0].tls"),
        (
            "diameter.peers = [{origin_host = '*', networks = ['::1/128'], answers = {grey = 'green'}}]",
            "diameter.peers[0].answers.grey",
        ),
        ("diameter.requests_per_second = -1", "diameter.requests_per_second"),
        ("diameter.max_unopened = 0", "diameter.max_unopened"),
        ("diameter.tls.listen = ['127.0.0.1:5658']", "diameter.tls: certificate_file, key_file and ca_file"),
        ("diameter.tls.inband = true", "diameter.tls: certificate_file, key_file and ca_file"),
        ("diameter.tls.key_file = 'x'", "diameter.tls: certificate_file, key_file and ca_file"),
        ("diameter.tls.listen = [':5658']", "diameter.tls.listen"),
        ("diameter.listen = []", "diameter.listen: there is no way to any peer"),
        ("diameter.peers = [{origin_host = 'a b', networks = ['::1/128']}]", "diameter.peers[0].origin_host"),
        ("diameter.peers = [{origin_host = 'a*', networks = ['::1/128']}]", "diameter.peers[0]"),
        ("diameter.peers = [{origin_host = '*', networks = ['10.0.0.1/8']}]", "diameter.peers[0]"),
        ("diameter.peers = [{origin_host = '*', networks = ['somewhere']}]", "diameter.peers[0]"),
        ("node.origin_host = ''", "node.origin_host"),
        ('node.origin_host = "eir.test\\n"', "node.origin_host"),
        ("node.origin_realm = 'ü.test'", "node.origin_realm"),
        ("node.directory = ''", "node.directory"),
        ("node.workers = -1", "node.workers"),
        ("node.workers = true", "node.workers"),
        ("lists.no_list_policy = 'green'", "lists.no_list_policy"),
        ("lists.stale_after = 0", "lists.stale_after"),
        ("lists.stale_after = 4_294_967_296", "lists.stale_after"),
        ("lists.tac_max_age = 4_294_967_296", "lists.tac_max_age"),
        ("lists.snapshot = ''", "lists.snapshot"),
        ("lists.max_shrink = 1.5", "lists.max_shrink"),
        ("lists.ignored = -1", "lists.ignored"),
        ("lists.mqtt.port = 0", "lists.mqtt.port"),
        ("lists.http.url = 'ftp://lists.test'", "lists.http.url"),
        ("lists.http.interval = 0", "lists.http.interval"),
        ("lists.reports = {directory = 'reports', mqtt = true}", "lists.reports.mqtt: lists.mqtt.host and"),
        ("lists.reports = {directory = 'reports', pairs = true}", "lists.reports.pairs: lists.reports.mqtt and"),
        ("rules.override = 'black'", "rules.override"),
        ("rules.malformed = 'white'", "rules.malformed"),
        ("journal.hold_ms = 60_001", "journal.hold_ms"),
        ("journal.segment_bytes = 1", "journal.segment_bytes"),
        ("journal.max_bytes = 134_217_727", "journal.max_bytes"),
        ("audit.directory = ''", "audit.directory"),
        ("audit.segment_bytes = 4095", "audit.segment_bytes"),
        ("subscribers.source = 'ldap'", "subscribers.source"),
        ("subscribers.database = ''", "subscribers.database"),
        ("breaker.running = 0", "breaker.running"),
        ("breaker.starts_per_minute = 1.5", "breaker.starts_per_minute"),
        ("metrics.listen = '9464'", "metrics.listen"),
        ("control.socket = ''", "control.socket"),
        ("redis.mode = 'many'", "redis.mode"),
        ("redis.nodes = []", "redis.nodes"),
        ("redis.nodes = ['localhost:6379']", "redis.nodes: not redis://HOST:PORT"),
        ("redis.nodes = ['redis://:secret@localhost']", "redis.nodes: a URL with credentials; they have keys"),
        ("redis.nodes = ['redis://a', 'redis://b']", "redis.nodes: a server that stands alone is one"),
        ("redis = {mode = 'cluster', nodes = ['redis://a/1']}", "redis.nodes: a cluster has no numbered"),
        ("redis = {mode = 'sentinel', nodes = ['unix:///a']}", "redis.nodes: only a server that stands alone"),
        ("redis = {mode = 'cluster', nodes = ['redis://a', 'rediss://b']}", "redis.nodes: all nodes must be of one"),
        ("redis = {password = 'a', password_file = 'b'}", "redis.password_file: there is a redis.password too"),
        ("redis.prefix = 'a{b}'", "redis.prefix"),
        ("redis.timeout = 0", "redis.timeout"),
        ("redis.min_replicas = -1", "redis.min_replicas"),
        ("log.level = 'loud'", "log.level"),
        ("log = 1", "log"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'eir.toml'}: {key}")


def test_what_is_no_toml_and_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"eir.toml: .*line 2"):
        load(tmp_path, "node = ]")
    (tmp_path / "eir.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"eir.toml: "):
        config.load(tmp_path / "eir.toml")
    with pytest.raises(ConfigError, match=r"none.toml: No such file"):
        config.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"Asia/Almaty"', '"Asia/Nowhere"', "timezone"),
        ('"Asia/Almaty"', '"../../etc/passwd"', "timezone"),
        ('"Asia/Almaty"', '""', "timezone"),
        ("grey_days = 30", "grey_days = 0", "grey_days"),
        ("grey_days = 30", "", "top level: Object missing required field `grey_days`"),
        ("home_mccs = [1]", "home_mccs = [1000]", r"home_mccs\[0\]"),
        ("non_roamer_plmns = []", 'non_roamer_plmns = ["0019"]', r"non_roamer_plmns\[0\]"),
        ('"stolen"', '"Stolen!"', r"hard_reasons\[0\]"),
        ('"0010"', '"00x"', r"test_tacs\[0\]"),
        ("grey_days = 30", "grey_days = 30\nweeks = 4", "weeks: unknown key"),
        ("answers = {}", 'answers = { grey = "green" }', "answers.grey"),
        ("answers = {}", 'answers = { gray = "white" }', "answers.gray: unknown key"),
    ],
)
def test_a_mistake_in_the_country_is_named(tmp_path: Path, old: str, new: str, key: str) -> None:
    path = write_config(tmp_path)
    profile = tmp_path / "countries" / "test.toml"
    text = profile.read_text()
    assert old in text
    profile.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=rf"test.toml: {key}"):
        config.load(path)


def test_a_country_without_a_profile(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere.toml: No such file"):
        config.load(write_config(tmp_path, {"node": {"country": "nowhere"}}))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:3868", "::1", 3868), ("0.0.0.0:65535", "0.0.0.0", 65535)],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    assert config.parse_endpoint(text) == (ip_address(host), port)


def test_relative_paths_start_at_the_directory() -> None:
    assert Config().path("journal") == Path("/var/lib/eir/journal")
    assert Config().path("/srv/journal") == Path("/srv/journal")


class TestRedis:
    def test_a_password_comes_from_its_key_or_the_first_line_of_its_file(self, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("out of a file\nnot this\n")
        settings = load(tmp_path, "redis.password = 'out of a key'")
        assert config.redis_settings(settings).password == "out of a key"
        settings = load(tmp_path, f"redis = {{password_file = '{secret}', sentinel_password_file = '{secret}'}}")
        redis = config.redis_settings(settings)
        assert (redis.password, redis.sentinel_password) == ("out of a file", "out of a file")

    def test_a_password_is_in_no_text(self, tmp_path: Path) -> None:
        settings = load(tmp_path, "redis = {password = 'secret', username = 'eir'}")
        for printed in (settings, settings.redis, config.redis_settings(settings)):
            assert "secret" not in repr(printed) and "secret" not in str(printed)
        assert "username='eir'" in repr(settings.redis)

    def test_a_file_that_is_not_there_is_named_by_its_key(self, tmp_path: Path) -> None:
        settings = load(tmp_path, "redis.password_file = '/nowhere/secret'")
        with pytest.raises(ConfigError, match=r"redis.password_file: No such file"):
            config.redis_settings(settings)
