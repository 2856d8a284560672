"""Apps from folders and archives: what is loaded, and that hostile or broken ones are refused by name."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugin_server.model.errors import ConfigurationError
from plugin_server.registry import app_source
from plugin_server.registry.app_source import FILE_LIMIT_BYTES, app_slug, load_app

SOURCE = b"def processEvent(event, meta):\n    return event\n"
FILES = {"plugin.json": b'{"name": "A"}', "main.py": SOURCE, "README.md": b"read me"}


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    for name, contents in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(contents)


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)


def write_tgz(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, contents in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(contents)
            archive.addfile(info, io.BytesIO(contents))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)


WRITERS = {"folder": write_folder, "a.zip": write_zip, "a.tgz": write_tgz, "a.tar.gz": write_tgz}


def refusal(reference: str, base: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_app(reference, base)
    return str(caught.value)


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize("root", ["", "posthog-app-1.0/"])
def test_the_same_app_has_the_same_version_wherever_it_comes_from(tmp_path, name, root):
    if name == "folder":
        root = ""
    WRITERS[name](tmp_path / name, {root + file: contents for file, contents in FILES.items()})
    app = load_app(name, tmp_path).app
    assert (app.name, app.file_name, app.source) == ("A", "main.py", SOURCE.decode())
    assert app.manifest["config"] == []
    assert len(bytes.fromhex(app.version)) == 32
    write_folder(tmp_path / "reference", FILES)
    assert app.version == load_app("reference", tmp_path).app.version


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"README.md": b"other"}, True),
        ({"plugin.json": b'{ "name" : "A" }'}, True),
        ({"plugin.json": b'{"name": "A", "lib": "x"}'}, False),
        ({"plugin.json": b'{"name": "B"}'}, False),
        ({"main.py": SOURCE + b"\n"}, False),
    ],
)
def test_the_version_changes_with_code_and_manifest_and_nothing_else(tmp_path, changed, same):
    write_folder(tmp_path / "a", FILES)
    write_folder(tmp_path / "b", FILES | changed)
    assert (load_app("a", tmp_path).app.version == load_app("b", tmp_path).app.version) is same


def test_the_manifest_may_name_a_main_file_in_a_folder(tmp_path):
    files = {"plugin.json": b'{"name": "A", "main": "src/app.py"}', "src/app.py": SOURCE}
    for name, write in WRITERS.items():
        write(tmp_path / name, files)
        assert load_app(name, tmp_path).app.file_name == "src/app.py"


@pytest.mark.parametrize("name", list(WRITERS))
@pytest.mark.parametrize(
    ("files", "place", "expected"),
    [
        ({"main.py": SOURCE}, "plugin.json", "is missing"),
        ({"plugin.json": b'{"name": "A"}'}, "main.py", "is missing"),
        ({"plugin.json": b'{"name":\n ]', "main.py": SOURCE}, "plugin.json", "line 2, column 2"),
        ({"plugin.json": b"[" * 100_000, "main.py": SOURCE}, "plugin.json", "nests too deep"),
        ({"plugin.json": b"\xff{}", "main.py": SOURCE}, "plugin.json", "UTF-8"),
        ({"plugin.json": b"[]", "main.py": SOURCE}, "plugin.json", "one JSON object"),
        ({"plugin.json": b'{"name": "A"}', "main.py": b"x = 1\ny = '\xe9'\n"}, "main.py, line 2", "UTF-8"),
        ({"plugin.json": b'{"name": "A", "main": "../x.py"}'}, "plugin.json", "inside the app's folder"),
        ({"plugin.json": b'{"name": "A", "main": "index.js"}'}, "plugin.json", "Python file"),
        ({**FILES, "main.py": b"#" * (FILE_LIMIT_BYTES + 1)}, "main.py", "larger than"),
    ],
)
def test_a_broken_app_is_refused_by_its_file(tmp_path, name, files, place, expected):
    WRITERS[name](tmp_path / name, files)
    message = refusal(name, tmp_path)
    assert message.startswith(str(tmp_path / name))
    assert place in message
    assert expected in message


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
@pytest.mark.parametrize("entry", ["../evil.py", "/etc/evil.py", "x/../../evil.py", "..\\evil.py", "C:\\evil.py"])
def test_an_archive_that_points_outside_is_refused_and_writes_nothing(tmp_path, name, entry):
    folder = tmp_path / "in"
    folder.mkdir()
    WRITERS[name](folder / name, {**FILES, entry: b"evil"})
    assert "points outside" in refusal(name, folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(["in", name])


def test_links_are_not_followed_in_an_archive(tmp_path):
    write_tgz(tmp_path / "a.tgz", {"plugin.json": b'{"name": "A"}'}, {"main.py": "/etc/passwd"})
    assert "main.py is missing" in refusal("a.tgz", tmp_path)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("plugin.json", b'{"name": "A"}')
        info = zipfile.ZipInfo("main.py")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    assert "main.py is missing" in refusal("a.zip", tmp_path)


def test_links_are_not_followed_out_of_a_folder(tmp_path):
    (tmp_path / "secret.py").write_text("secret")
    write_folder(tmp_path / "a", {"plugin.json": b'{"name": "A"}'})
    (tmp_path / "a" / "main.py").symlink_to(tmp_path / "secret.py")
    assert "link to outside" in refusal("a", tmp_path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(app_source, "ARCHIVE_LIMIT_BYTES", 100_000)
    write_tgz(tmp_path / "a.tgz", {**FILES, "big": bytes(200_000)})
    assert "unpacks to more than" in refusal("a.tgz", tmp_path)
    (tmp_path / "b.zip").write_bytes(bytes(100_001))
    assert "larger than 100000 bytes" in refusal("b.zip", tmp_path)


def test_an_archive_of_too_many_entries_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(app_source, "ARCHIVE_LIMIT_ENTRIES", 2)
    for name in ("a.zip", "a.tgz"):
        WRITERS[name](tmp_path / name, FILES)
        assert "more than 2 entries" in refusal(name, tmp_path)


@given(raw=st.binary(max_size=300), cut=st.integers(0, 400), position=st.integers(0, 400), byte=st.integers(0, 255))
def test_no_bytes_of_an_archive_crash_the_loader(tmp_path_factory, raw, cut, position, byte):
    folder = tmp_path_factory.mktemp("archives")
    for name, write in (("a.zip", write_zip), ("a.tgz", write_tgz)):
        write(folder / name, FILES)
        whole = bytearray((folder / name).read_bytes())
        whole[position % len(whole)] = byte
        for contents in (raw, bytes(whole), bytes(whole[:cut])):
            (folder / name).write_bytes(contents)
            try:
                load_app(name, folder)
            except ConfigurationError as error:
                assert name in str(error)  # noqa: PT017 - loading may succeed too


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("nowhere", "does not exist"),
        ("file.js", "of another kind"),
        ("catalogue:geoip", "not in this version"),
        ("a\0b", "a"),
    ],
)
def test_another_reference_is_refused(tmp_path, reference, expected):
    (tmp_path / "file.js").write_text("")
    assert expected in refusal(reference, tmp_path)


@pytest.mark.parametrize(
    ("reference", "slug"),
    [
        ("./apps/url-cleaner", "url-cleaner"),
        ("apps/url-cleaner/", "url-cleaner"),
        ("/x/url-cleaner.ZIP", "url-cleaner"),
        ("url-cleaner.tar.gz", "url-cleaner"),
        ("catalogue:url-cleaner", "url-cleaner"),
    ],
)
def test_an_app_is_called_by_the_last_part_of_its_path(reference, slug):
    assert app_slug(reference) == slug


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    write_folder(
        tmp_path / "a", {"plugin.json": b"\xef\xbb\xbf" + json.dumps({"name": "A"}).encode(), "main.py": SOURCE}
    )
    write_folder(tmp_path / "a", {"main.py": b"\xef\xbb\xbf" + SOURCE})
    assert load_app("a", tmp_path).app.source == SOURCE.decode()
