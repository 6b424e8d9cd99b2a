"""The render tree: the same twice, stale files go, foreign files stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keadb.bundle import Bundle, File, Unit
from keadb.render_tree import RenderError, tree, write_tree


def _bundle(name: str = "etcd", **files: str) -> Bundle:
    return Bundle(
        name=name,
        host="h1",
        files={f"/etc/{path}": File(content=content, mode="0640") for path, content in files.items()},
        units={"etcd.service": Unit(restart_on=tuple(f"/etc/{path}" for path in files))},
    )


def _read(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_tree_holds_files_as_they_land_and_the_rest_as_json(tmp_path: Path) -> None:
    """Contents are files (reviewed line by line); the bundle's JSON repeats none of them, nor a digest."""
    write_tree(tmp_path / "out", {"h1": [_bundle(conf="password: @secret:etcd_root_password@\n")]})
    assert (tmp_path / "out/h1/files/etc/conf").read_text() == "password: @secret:etcd_root_password@\n"
    plain = json.loads((tmp_path / "out/h1/bundles/etcd.json").read_text())
    assert set(plain["files"]["/etc/conf"]) == {"group", "mode", "owner"}
    assert plain["secrets"] == {"etcd_root_password": None}
    assert plain["units"]["etcd.service"]["restart_on"] == ["/etc/conf"]


def test_the_same_twice_and_after_stale_files(tmp_path: Path) -> None:
    """A second run changes nothing; what an earlier run wrote and this one does not is gone, empty folders too."""
    bundles = {"h1": [_bundle(a="1\n", b="2\n")], "h2": [_bundle(c="3\n")]}
    write_tree(tmp_path / "out", bundles)
    first = _read(tmp_path / "out")
    write_tree(tmp_path / "out", bundles)
    assert _read(tmp_path / "out") == first
    write_tree(tmp_path / "out", {"h1": [_bundle(a="1\n")]})
    assert not (tmp_path / "out/h2").exists()
    write_tree(tmp_path / "new", {"h1": [_bundle(a="1\n")]})
    assert _read(tmp_path / "out") == _read(tmp_path / "new")


def test_order_of_hosts_does_not_matter(tmp_path: Path) -> None:
    """The tree is a function of the bundles, not of the order in which components made them."""
    one, two = _bundle(a="1\n"), _bundle(b="2\n")
    assert write_tree(tmp_path / "x", {"h1": [one], "h2": [two]}) == write_tree(
        tmp_path / "y", {"h2": [two], "h1": [one]}
    )
    assert _read(tmp_path / "x") == _read(tmp_path / "y")


def test_foreign_content_is_refused_and_kept(tmp_path: Path) -> None:
    """`--out` on a folder of somebody's work must not delete it, not even a part."""
    write_tree(tmp_path, {"h1": [_bundle(a="1\n", b="2\n")]})
    (tmp_path / "notes.txt").write_text("mine")
    before = _read(tmp_path)
    with pytest.raises(RenderError, match=r"holds notes\.txt, which no earlier render wrote"):
        write_tree(tmp_path, {"h1": [_bundle(a="1\n")]})
    assert _read(tmp_path) == before


def test_a_file_in_the_way(tmp_path: Path) -> None:
    """`--out` on a file is one clear error."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RenderError, match="is not a folder"):
        write_tree(tmp_path / "out", {})


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link inside the folder is foreign content: writing through it would land elsewhere."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    out.mkdir()
    (out / "h1").symlink_to(elsewhere)
    with pytest.raises(RenderError, match="holds h1"):
        write_tree(out, {"h1": [_bundle(a="1\n")]})
    assert not any(elsewhere.iterdir())


def test_a_file_becomes_a_folder(tmp_path: Path) -> None:
    """A path that was a file and is now a folder (and back) is no obstacle."""
    flat = {"h1": [Bundle(name="x", host="h1", files={"/etc/a": File(content="1\n")})]}
    deep = {"h1": [Bundle(name="x", host="h1", files={"/etc/a/b": File(content="1\n")})]}
    for bundles in (flat, deep, flat):
        assert set(_read(tmp_path)) - {".keadb-render"} <= set(write_tree(tmp_path, bundles)) | set(tree(flat)) | set(
            tree(deep)
        )
    assert set(_read(tmp_path)) - {".keadb-render"} == set(tree(flat))


def test_two_bundles_that_write_one_file_are_refused() -> None:
    """Two services that own one file would overwrite each other at every run."""
    with pytest.raises(RenderError, match=r"bundle y on h1: h1/files/etc/a is written twice"):
        tree({"h1": [_bundle("x", a="1"), _bundle("y", a="2")]})


@pytest.mark.parametrize("path", ["etc/a", "/etc/../../a"])
def test_paths_leave_the_tree_nowhere(path: str) -> None:
    """A slip in a bundle must not write outside the folder."""
    with pytest.raises(RenderError, match="is not an absolute path"):
        tree({"h1": [Bundle(name="x", host="h1", files={path: File(content="")})]})
