"""TLS on every hop, both ways: who is refused, and that the same way works for who is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab.tls_authority import BAD, RIGHT, WRONG_NAME, Authority, Pair
from tests.lab.tls_lab import FOLDER, ask, fake, read, running
from tests.lab.tls_programs import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.lab.harness import Site

pytestmark = pytest.mark.lab
VIP = "172.30.30.13"


@dataclass(frozen=True)
class Port:
    """A port that leaves its host: whose it is (``""``: the first database host's), and what it speaks.

    ``certificate`` says whether a client must show one; one that is shown must be good everywhere. ``checks_name``
    says whether it must be one of the address that the client comes from.
    """

    number: int
    protocol: str
    certificate: bool
    address: str = ""
    checks_name: bool = False

    def question(self, site: Site) -> dict[str, Any]:
        """Return the address and protocol of a question to it."""
        address = self.address or str(site.lab.address(site.database_hosts[0]))
        return {"address": address, "port": self.number, "protocol": self.protocol}


PORTS = {
    "PostgreSQL": Port(5432, "postgres", certificate=False),
    "PgBouncer": Port(6432, "postgres", certificate=False),
    "virtual address, write": Port(5432, "postgres", certificate=False, address=VIP),
    "virtual address, read": Port(5433, "postgres", certificate=False, address=VIP),
    "read, past the virtual address": Port(5433, "postgres", certificate=False),
    "Patroni": Port(8008, "http", certificate=True),
    "etcd, clients": Port(2379, "http", certificate=True),
    "etcd, peers": Port(2380, "http", certificate=True, checks_name=True),
}


@pytest.fixture(scope="module")
def authority(site: Site) -> Iterator[Authority]:
    """The site's own CA, in the hands of a test; what programs were given on the hosts is gone at the end."""
    site.wait_until_healthy()
    ca = read(site, site.database_hosts[0], "/etc/keadb/tls/ca.crt")
    yield Authority(ca, site.secrets()["ca_key"])
    for host in site.database_hosts:
        site.lab.exec(host, ["rm", "-rf", FOLDER])


def _names(site: Site) -> list[str]:
    """Return all names that any client asks for, on loopback, where the fake servers are."""
    hosts = [f"{host}.example.com" for host in site.database_hosts]
    return ["127.0.0.1", "localhost", *hosts, f"kea-db-primary.{site.name}.example.com"]


def _asker(site: Site) -> str:
    """Return the address from which ports are asked: a peer's, whom every firewall lets in."""
    return str(site.lab.address(site.database_hosts[1]))


def _shown(pair: Pair) -> dict[str, str]:
    return {"cert": str(pair.cert), "key": str(pair.key)}


@pytest.mark.parametrize("kind", [RIGHT, *BAD])
@pytest.mark.parametrize("hop", PROGRAMS)
def test_a_client_goes_on_with_the_right_server_only(
    hop: str, kind: str, site: Site, authority: Authority, tmp_path: Path
) -> None:
    """Each program, with what was rendered for it, meets a server that shows a certificate of this kind."""
    program = PROGRAMS[hop]
    host = site.database_hosts[0]
    pair = authority.issue(tmp_path, kind, _names(site))
    with fake(site, host, pair, program.protocol) as server:
        command = program.command(site, host, server.port)
        with running(site, host, command, program.user) as process:
            heard = server.heard()
        assert process.stdout
        # Patroni, as a client of its peers, sees to the CA and the dates, not to the name: docs/tls.md.
        expected = kind == RIGHT or (kind == WRONG_NAME and not program.checks_name)
        assert heard["went_on"] is expected, f"{heard}\n{process.stdout.read()}"


@pytest.mark.parametrize("kind", [RIGHT, *BAD])
@pytest.mark.parametrize("port", PORTS)
def test_a_server_answers_clients_with_a_good_certificate_only(
    port: str, kind: str, site: Site, authority: Authority, tmp_path: Path
) -> None:
    """A certificate that is shown must be the site's and in force, also where none is needed.

    Only etcd wants its peers' certificates to have the address that they come from; who may log in as whom with a
    certificate is tested with the access rules.
    """
    pair = authority.issue(tmp_path, kind, [_asker(site)])
    heard = ask(site, site.database_hosts[1], **PORTS[port].question(site), **_shown(pair))
    expected = kind == RIGHT or (kind == WRONG_NAME and not PORTS[port].checks_name)
    assert heard["went_on"] is expected, heard


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("port", PORTS)
def test_without_a_certificate_only_those_answer_who_ask_for_a_password(port: str, site: Site) -> None:
    heard = ask(site, site.database_hosts[1], **PORTS[port].question(site))
    assert heard["went_on"] is not PORTS[port].certificate, heard


@pytest.mark.parametrize("newest", ["TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize("port", PORTS)
def test_old_versions_are_refused(port: str, newest: str, site: Site, authority: Authority, tmp_path: Path) -> None:
    """A client that speaks nothing newer than this; the very same one agrees on it with a server that does."""
    good = _shown(authority.issue(tmp_path / "client", RIGHT, [_asker(site)]))
    host = site.database_hosts[1]
    heard = ask(site, host, **PORTS[port].question(site), **good, newest=newest)
    if newest in ("TLSv1_2", "TLSv1_3"):
        assert (heard["went_on"], heard["version"]) == (True, newest.replace("_", ".")), heard
        return
    assert heard["went_on"] is False, heard
    assert "PROTOCOL_VERSION" in heard["why"], heard
    old = authority.issue(tmp_path / "server", RIGHT, ["127.0.0.1"])
    with fake(site, host, old, PORTS[port].protocol, newest=newest) as server:
        question = {"address": "127.0.0.1", "port": server.port, "protocol": PORTS[port].protocol}
        ask(site, host, **question, **good, newest=newest)
        heard = server.heard()
    assert (heard["went_on"], heard["version"]) == (True, newest.replace("_", ".")), heard


CLEAR_REFUSED = ("SSL required", "no encryption", "400 Bad Request", "reset by peer")
"""What a refusal of cleartext is: words in clear, or an end. Nothing that anybody asked for."""


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("port", PORTS)
def test_cleartext_is_refused(port: str, site: Site) -> None:
    heard = ask(site, site.database_hosts[1], **PORTS[port].question(site), tls=False)
    refused = heard["why"] == "" or any(words in heard["why"] for words in CLEAR_REFUSED)
    assert refused, heard
