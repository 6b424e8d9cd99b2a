"""Keys that stay, certificates that fit, and their way into the services (real openssl)."""

from __future__ import annotations

import json
import stat
from typing import Any

import pytest

from hostkit import applied, applier, bundle, placing, tls
from hostkit.errors import BadInput, HostError
from keadb.bundle import Bundle, Start, TlsUse, Unit
from tests.unit.hostkit.fakes import HOST, FakeUnit, Machine
from tests.unit.hostkit.tls_samples import Authority

KEY, CERT, CA = "/etc/db/tls.key", "/etc/db/tls.crt", "/etc/db/ca.crt"


def using(unit: Unit) -> Bundle:
    """A bundle that places the certificate ``db``."""
    use = TlsUse(key=KEY, cert=CERT, ca=CA, owner="postgres", group="postgres")
    return Bundle(name="db", host=HOST, tls={"db": use}, units={"db.service": unit})


def certify(machine: Machine, authority: Authority, serial: int) -> dict[str, Any]:
    """Sign this host's request and send it, as the program does."""
    request = tls.requests(machine.ctx, ["db"])["db"]
    given = {"db": authority.sign_request(request, serial)}
    return applier.certify(machine.ctx, tls.validated(machine.ctx, authority.ca, given))


def apply(machine: Machine, what: Bundle) -> applier.Summary:
    """Through the JSON, as the verb does."""
    return applier.apply(machine.ctx, bundle.parse(what.to_json()))


def test_keys_and_requests_stay_and_only_root_reads_them(machine: Machine) -> None:
    """A second run returns the same bytes, also when a name is added."""
    first = tls.requests(machine.ctx, ["db"])
    before = machine.stamps()
    assert tls.requests(machine.ctx, ["db"]) == first
    assert machine.stamps() == before
    assert tls.requests(machine.ctx, ["db", "client"])["db"] == first["db"]
    folder = machine.root / tls.FOLDER[1:]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o600}


def test_a_request_that_a_cut_run_did_not_write_is_made_for_the_same_key(machine: Machine) -> None:
    """Also one that belongs to another key."""
    tls.requests(machine.ctx, ["db", "other"])
    key = machine.text(f"{tls.FOLDER}/db.key")
    machine.put(f"{tls.FOLDER}/db.csr", machine.text(f"{tls.FOLDER}/other.csr"), 0o600)
    certify(machine, Authority(), 2)
    assert machine.text(f"{tls.FOLDER}/db.key") == key


@pytest.mark.parametrize("name", ["../db", "ca", "", 5, "a b"])
def test_bad_certificate_names_are_bad_input(machine: Machine, name: object) -> None:
    """They become file names."""
    with pytest.raises(BadInput, match=r"certificate name .*allowed are lower-case letters"):
        tls.requests(machine.ctx, [name])


def test_a_certificate_for_another_key_is_bad_input_and_nothing_is_stored(machine: Machine) -> None:
    """It would stop the service at its next start."""
    authority = Authority()
    requests = tls.requests(machine.ctx, ["db", "other"])
    with pytest.raises(BadInput, match="'db' does not belong to the key on this host"):
        tls.validated(machine.ctx, authority.ca, {"db": authority.sign_request(requests["other"])})
    assert not list((machine.root / tls.FOLDER[1:]).glob("*.crt"))
    assert not (machine.root / tls.FOLDER[1:] / "ca.new").exists()


def test_a_certificate_of_another_ca_is_bad_input(machine: Machine) -> None:
    """Both CAs may even have the same name."""
    requests = tls.requests(machine.ctx, ["db"])
    with pytest.raises(BadInput, match="'db' is not one that the given CA signed"):
        tls.validated(machine.ctx, Authority().ca, {"db": Authority().sign_request(requests["db"])})


@pytest.mark.parametrize("text", [None, "", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_bad_input(machine: Machine, text: object) -> None:
    """With the name of the certificate."""
    tls.requests(machine.ctx, ["db"])
    with pytest.raises(BadInput, match="certificate 'db'"):
        tls.validated(machine.ctx, Authority().ca, {"db": text})


def test_a_certificate_without_a_key_here_is_an_error(machine: Machine) -> None:
    """A rebuilt host that was not asked for requests yet."""
    authority = Authority()
    request = tls.requests(machine.ctx, ["db"])["db"]
    with pytest.raises(HostError, match="key 'nokey' was never made on this host; run the verb 'keys' first"):
        tls.validated(machine.ctx, authority.ca, {"nokey": authority.sign_request(request)})


def test_a_bundle_gets_key_certificate_and_ca_with_their_owners(machine: Machine) -> None:
    """The key for nobody else; the CA also for everybody on the host."""
    authority = Authority()
    certify(machine, authority, 2)
    machine.system.units["db.service"] = FakeUnit()
    apply(machine, using(Unit()))
    tree = machine.tree()
    assert [tree[path][0] for path in (KEY, CERT, CA, tls.CA)] == [0o600, 0o644, 0o644, 0o644]
    assert tree[KEY][1] == machine.text(f"{tls.FOLDER}/db.key")
    assert tree[CA][1] == tree[tls.CA][1]
    assert tree[KEY][1] not in machine.text(f"{applied.FOLDER}/db.json")


def test_a_bundle_before_its_certificate_is_an_error_that_says_so(machine: Machine) -> None:
    """Nothing is placed."""
    tls.requests(machine.ctx, ["db"])
    with pytest.raises(HostError, match="certificate 'db', wanted by bundle db, is not on this host"):
        apply(machine, using(Unit()))
    assert machine.system.calls == [c for c in machine.system.calls if c.startswith("openssl")]


@pytest.mark.parametrize(
    ("unit", "did"),
    [
        (Unit(reload_on=(CERT,)), "reloaded"),
        (Unit(restart_on=(CERT,)), "restarted"),
        (Unit(start=Start.CLUSTER, reload_on=(CERT,)), "reloaded"),
    ],
)
def test_a_new_certificate_replaces_the_old_one_and_its_unit_learns_of_it(
    machine: Machine, unit: Unit, did: str
) -> None:
    """Once: sending the same again does nothing."""
    authority = Authority()
    certify(machine, authority, 2)
    fake = machine.system.units["db.service"] = FakeUnit(reads=(CERT,))
    apply(machine, using(unit))
    fake.active = "active"
    request = tls.requests(machine.ctx, ["db"])["db"]
    given = tls.validated(machine.ctx, authority.ca, {"db": authority.sign_request(request, 3)})
    summary = applier.certify(machine.ctx, given)
    assert summary["units"] == {"db.service": did}
    assert set(summary["files"]) >= {CERT}
    assert fake.running == (machine.text(CERT),)
    before = machine.stamps()
    assert applier.certify(machine.ctx, tls.Material.stored(machine.ctx))["changed"] is False
    assert machine.stamps() == before
    record = json.loads(machine.text(f"{applied.FOLDER}/db.json"))
    wanted = {p.path: p.record() for p in placing.tls_placements(machine.ctx, applied.records(machine.ctx)[0].bundle)}
    assert record["files"] == wanted
