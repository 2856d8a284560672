"""Where an app's files come from: a folder, a .zip or a .tgz. Only plugin.json and the main file are ever read.

Archives are read in memory and never unpacked, so nothing in them can land outside of a folder; even so, one that tries
to (absolute names, `..`) is refused whole. The one folder that archives of GitHub and npm have at their root is
stripped. Links are not followed out of a folder, and not at all in an archive.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from plugin_server.model.errors import ConfigurationError
from plugin_server.model.project import App
from plugin_server.registry.manifest import Manifest, parse_manifest

MANIFEST_FILE = "plugin.json"
FILE_LIMIT_BYTES = 2**20
ARCHIVE_LIMIT_BYTES = 50 * 2**20
"""Of the archive itself and, for a .tgz, of what it unpacks to."""
ARCHIVE_LIMIT_ENTRIES = 10_000
CATALOGUE_PREFIX = "catalogue:"
_SUFFIXES = (".tar.gz", ".tgz", ".zip")

Read = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An app and its manifest, parsed."""

    app: App
    manifest: Manifest


def app_slug(reference: str) -> str:
    """The last part of an app's reference, without an archive's suffix: `./apps/url-cleaner.zip` is `url-cleaner`."""
    name = PurePosixPath(reference.strip().replace("\\", "/").removeprefix(CATALOGUE_PREFIX)).name
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def load_app(reference: str, base: Path) -> LoadedApp:
    """The app that `reference` names, relative to the folder `base`.

    `App.version` is the SHA-256, in hex, of the main file's bytes, a NUL, and plugin.json in canonical form. Whether the
    code compiles is not looked at: that is found out in the sandbox. Raises ConfigurationError naming the file. Blocks.
    """
    if reference.startswith(CATALOGUE_PREFIX):
        raise ConfigurationError(
            f"{reference}: the catalogue is not in this version. Write the path of a folder, a .zip or a .tgz instead."
        )
    path = base / reference
    try:
        if path.is_dir():
            return _assemble(str(path), _folder_reader(path))
        if path.is_file() and path.name.lower().endswith(".zip"):
            return _assemble(str(path), _archive_reader(path, _zip_entries(_read_file(path, ARCHIVE_LIMIT_BYTES))))
        if path.is_file() and path.name.lower().endswith((".tgz", ".tar.gz")):
            return _assemble(str(path), _archive_reader(path, _tar_entries(_read_file(path, ARCHIVE_LIMIT_BYTES))))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read ({error.strerror or error}).") from None
    except _BadArchive as error:
        raise ConfigurationError(f"{path}: {error}") from None
    if path.is_file():
        raise ConfigurationError(f"{path} is a file of another kind. Write the path of a folder, a .zip or a .tgz.")
    raise ConfigurationError(f"{path} does not exist. Write the path of the app's folder, relative to this file.")


class _BadArchive(Exception):
    """Why an archive is refused; becomes a ConfigurationError with its path."""


def _assemble(place: str, read: Callable[[str], bytes | None]) -> LoadedApp:
    raw_manifest = read(MANIFEST_FILE)
    if raw_manifest is None:
        raise ConfigurationError(
            f'{place}/{MANIFEST_FILE} is missing. Write one, at least {{"name": "My app"}}, beside main.py.'
        )
    manifest, canonical = parse_manifest(raw_manifest, f"{place}/{MANIFEST_FILE}")
    raw_source = read(manifest.main)
    if raw_source is None:
        raise ConfigurationError(
            f"{place}/{manifest.main} is missing. Write the app's code there, or name its file as `main` in {MANIFEST_FILE}."
        )
    try:
        source = raw_source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw_source.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{place}/{manifest.main}, line {line}: is not UTF-8. Save it as UTF-8.") from None
    version = hashlib.sha256(raw_source + b"\0" + canonical.encode()).hexdigest()
    app = App(
        name=manifest.name,
        version=version,
        file_name=manifest.main,
        source=source,
        manifest=manifest.model_dump(mode="json", by_alias=True),
    )
    return LoadedApp(app, manifest)


def _read_file(path: Path, limit_bytes: int) -> bytes:
    with path.open("rb") as file:
        raw = file.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise ConfigurationError(f"{path} is larger than {limit_bytes} bytes. Make it smaller.")
    return raw


def _folder_reader(folder: Path) -> Callable[[str], bytes | None]:
    def read(name: str) -> bytes | None:
        path = folder / name
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ConfigurationError(f"{path} is a link to outside of the app's folder. Put the file itself there.")
        return _read_file(path, FILE_LIMIT_BYTES)

    return read


def _archive_reader(path: Path, entries: Mapping[str, Read]) -> Callable[[str], bytes | None]:
    root = _root(entries)

    def read(name: str) -> bytes | None:
        entry = entries.get(root + name)
        if entry is None:
            return None
        raw = entry()
        if len(raw) > FILE_LIMIT_BYTES:
            raise ConfigurationError(f"{path}/{name} is larger than {FILE_LIMIT_BYTES} bytes. Make it smaller.")
        return raw

    return read


def _root(entries: Mapping[str, Read]) -> str:
    if MANIFEST_FILE in entries:
        return ""
    roots = {name.split("/", 1)[0] for name in entries}
    return f"{roots.pop()}/" if len(roots) == 1 else ""


def _zip_entries(raw: bytes) -> dict[str, Read]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise _BadArchive(f"is not a readable .zip ({error}). Make it again.") from None

    def reader(info: zipfile.ZipInfo) -> Read:
        def read() -> bytes:
            try:
                with archive.open(info) as file:
                    return file.read(FILE_LIMIT_BYTES + 1)
            except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
                raise _BadArchive(f"{info.filename} in it cannot be read ({error}). Make the archive again.") from None

        return read

    infos = archive.infolist()
    _refuse_too_many(len(infos))
    entries = {}
    for info in infos:
        name = _safe_name(info.filename)
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        if not info.filename:
            raise _BadArchive("has an entry without a name. Make it again.")
        if not info.is_dir() and not is_link:
            entries[name] = reader(info)
    return entries


def _tar_entries(raw: bytes) -> dict[str, Read]:
    try:
        with gzip.open(io.BytesIO(raw)) as file:
            unpacked = file.read(ARCHIVE_LIMIT_BYTES + 1)
        if len(unpacked) > ARCHIVE_LIMIT_BYTES:
            raise _BadArchive(f"unpacks to more than {ARCHIVE_LIMIT_BYTES} bytes. Make it smaller.")
        archive = tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:")  # noqa: SIM115
        members = []
        for member in archive:
            members.append(member)
            _refuse_too_many(len(members))
    except (OSError, EOFError, zlib.error, tarfile.TarError, ValueError) as error:
        raise _BadArchive(f"is not a readable .tgz ({error}). Make it again.") from None

    def reader(member: tarfile.TarInfo) -> Read:
        def read() -> bytes:
            file = archive.extractfile(member)
            return file.read(FILE_LIMIT_BYTES + 1) if file else b""

        return read

    entries = {}
    for member in members:
        name = _safe_name(member.name)
        if member.isreg():
            entries[name] = reader(member)
    return entries


def _refuse_too_many(entries: int) -> None:
    if entries > ARCHIVE_LIMIT_ENTRIES:
        raise _BadArchive(f"has more than {ARCHIVE_LIMIT_ENTRIES} entries. Leave out what the app does not need.")


def _safe_name(name: str) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":")):
        raise _BadArchive(
            f"has an entry that points outside of it ({name[:100]!r}). Make it again from the app's folder."
        )
    return str(path)
