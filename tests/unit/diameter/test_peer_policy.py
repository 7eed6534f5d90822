"""`eir.diameter.peer_policy`: whose entry decides, and which entries are mistakes."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from eir.diameter.peer_policy import PeerEntry, PeerPolicy, unmapped

V4, V6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")
REMOTE = ip_address("192.0.2.10")
ANYONE = PeerPolicy((PeerEntry("*", (V4, V6)),))


def found(policy: PeerPolicy, name: str, address: str = "192.0.2.10") -> str | None:
    entry = policy.find(name, ip_address(address))
    return None if entry is None else entry.origin_host


@pytest.mark.parametrize(
    ("pattern", "name", "admitted"),
    [
        ("mme1.example.org", "MME1.Example.org", True),
        ("mme1.example.org", "mme11.example.org", False),
        ("*.example.org", "a.b.EXAMPLE.org", True),
        ("*.Example.org", "a.example.org", True),
        ("*.example.org", "example.org", False),
        ("*.example.org", ".example.org", False),
        ("*.example.org", "mme.notexample.org", False),
        ("*.org", ".example.org", True),
        ("*", "anything", True),
        ("*", "*", True),
        ("*", "", True),
        ("*.example.org", "*.example.org", True),
    ],
)
def test_names(pattern: str, name: str, admitted: bool) -> None:
    assert (found(PeerPolicy((PeerEntry(pattern, (V4,)),)), name) is not None) is admitted


@pytest.mark.parametrize(
    ("address", "admitted"),
    [
        ("192.0.2.1", True),
        ("198.51.100.1", False),
        ("2001:db8::1", True),
        ("::ffff:192.0.2.1", True),
        ("::1", False),
    ],
)
def test_addresses(address: str, admitted: bool) -> None:
    assert (found(ANYONE, "mme", address) is not None) is admitted
    assert ANYONE.knows(ip_address(address)) is admitted


def test_the_most_exact_name_decides_alone() -> None:
    far = (ip_network("198.51.100.0/24"),)
    policy = PeerPolicy(
        (
            PeerEntry("*", (V4,)),
            PeerEntry("*.org", (V4,)),
            PeerEntry("*.example.org", (V4,)),
            PeerEntry("mme1.example.org", far),
            PeerEntry("MME1.example.org", (V6,)),
        )
    )
    assert found(policy, "mme2.example.org") == "*.example.org"
    assert found(policy, "example.org") == "*.org"
    assert found(policy, "example.net") == "*"
    # Its own entries do not hold this address, and no wider one is asked.
    assert found(policy, "mme1.example.org") is None
    assert found(policy, "mme1.example.org", "198.51.100.1") == "mme1.example.org"
    assert found(policy, "mme1.example.org", "2001:db8::1") == "MME1.example.org"


def test_the_disabled_are_kept_out_whatever_the_entries_say() -> None:
    policy = PeerPolicy((PeerEntry("*", (V4,)), PeerEntry("a.org", (V4,))), {"A.org", "b.org"})
    assert found(policy, "a.org") is found(policy, "B.ORG") is None
    assert found(policy, "c.org") == "*"
    assert policy.is_disabled("A.ORG")
    assert not policy.named
    assert policy.disabled == {"a.org", "b.org"}


def test_name_and_network_are_of_one_entry() -> None:
    policy = PeerPolicy((PeerEntry("a", (V4,)), PeerEntry("b", (V6,))))
    assert found(policy, "a")
    assert not found(policy, "b")


def test_no_entries_no_peers() -> None:
    assert found(PeerPolicy(()), "mme") is None
    assert not PeerPolicy(()).knows(REMOTE)


def test_networks_are_told_once_each() -> None:
    policy = PeerPolicy((PeerEntry("a", (V4, V6)), PeerEntry("b", (V4,))))
    assert policy.networks() == (V4, V6)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "192.0.2.10/32", "192.0.0.0/9"])
def test_networks_of_any_length(network: str) -> None:
    policy = PeerPolicy((PeerEntry("a", (ip_network(network),)),))
    assert policy.knows(REMOTE)
    assert not policy.knows(ip_address("::1"))


def test_the_addresses_of_connect_are_its_networks() -> None:
    here = (ip_address("192.0.2.1"), 3868), (ip_address("2001:db8::1"), 3869)
    entry = PeerEntry("mme1.example.org", connect=here)
    assert entry.networks == (ip_network("192.0.2.1/32"), ip_network("2001:db8::1/128"))
    assert PeerEntry("mme1.example.org", (V4,), connect=here).networks == (V4,)
    assert PeerPolicy((entry,)).named == {"mme1.example.org": [entry]}


@pytest.mark.parametrize("pattern", ["", "*.", "*example.org", "mme*.example.org", "**"])
def test_patterns_that_are_mistakes(pattern: str) -> None:
    with pytest.raises(ValueError, match="origin_host"):
        PeerEntry(pattern, (V4,))


def test_other_mistakes() -> None:
    here = (ip_address("192.0.2.1"), 3868)
    with pytest.raises(ValueError, match="no networks"):
        PeerEntry("*", ())
    with pytest.raises(ValueError, match="connect needs a name"):
        PeerEntry("*.example.org", (V4,), connect=(here,))
    with pytest.raises(ValueError, match="twice"):
        PeerEntry("mme", connect=(here, here))
    with pytest.raises(ValueError, match="connections"):
        PeerEntry("mme", (V4,), connections=0)


def test_unmapped() -> None:
    assert unmapped(ip_address("::ffff:192.0.2.10")) == REMOTE
    assert unmapped(ip_address("2001:db8::1")) == ip_address("2001:db8::1")
