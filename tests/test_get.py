"""``sstl data get``: broken transfers, checksums, full disks and hostile archives, against a server on this machine."""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from sstl.data.catalogue import KnownSet, known_sets
from sstl.data.download import download, unfinished
from sstl.data.unpack import unpack, unpacked_name
from sstl.errors import InputError, SstlError


class Site:
    """What the server offers, how it behaves, and what it was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.break_after: int | None = None
        self.asked: list[str | None] = []
        self.address = ""

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


class Handler(BaseHTTPRequestHandler):
    def __init__(self, site: Site, *args) -> None:
        self.site = site
        super().__init__(*args)

    def do_GET(self) -> None:
        site, data = self.site, self.site.files.get(self.path.lstrip("/"))
        site.asked.append(self.headers["Range"])
        if data is None:
            self.send_error(404, "Not here")
            return
        first = 0
        if site.ranges and self.headers["Range"]:
            first = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
            if first >= len(data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(data)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - first))
        self.end_headers()
        self.wfile.write(data[first : site.break_after])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    server.server_close()
    thread.join()


DATA = bytes(range(256)) * 4000
SHA = hashlib.sha256(DATA).hexdigest()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4)).save(buffer, "PNG")
    return {"rain/1.png": buffer.getvalue(), "norain/1.png": buffer.getvalue()}


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- transfers -----------------------------------------------------------------------------------------------------


def test_a_file_is_fetched_checked_and_not_fetched_again(site, tmp_path):
    site.files["set.bin"] = DATA
    path = download(site.url("set.bin"), tmp_path / "new", SHA.upper())
    assert path.read_bytes() == DATA
    assert left(tmp_path) == ["new/set.bin"]
    assert download(site.url("set.bin"), tmp_path / "new", SHA) == path
    assert len(site.asked) == 1


def test_a_broken_transfer_goes_on_where_it_broke_off(site, tmp_path):
    site.files["set.bin"], site.break_after = DATA, 300_000
    with pytest.raises(InputError, match=r"broke off after 0\.3 MB .*run it again, to go on from there"):
        download(site.url("set.bin"), tmp_path, SHA)
    assert left(tmp_path) == [unfinished(site.url("set.bin"), tmp_path).name]
    site.break_after = None
    assert download(site.url("set.bin"), tmp_path, SHA).read_bytes() == DATA
    assert site.asked == [None, "bytes=300000-"]


def test_a_server_without_ranges_sends_all_of_it_again(site, tmp_path):
    site.files["set.bin"], site.ranges = DATA, False
    unfinished(site.url("set.bin"), tmp_path).write_bytes(b"an old beginning")
    assert download(site.url("set.bin"), tmp_path, SHA).read_bytes() == DATA


@pytest.mark.parametrize("part", [DATA, DATA + b"of another file"], ids=["whole", "too long"])
def test_a_part_that_needs_no_more(site, tmp_path, part):
    site.files["set.bin"] = DATA
    unfinished(site.url("set.bin"), tmp_path).write_bytes(part)
    assert download(site.url("set.bin"), tmp_path, SHA).read_bytes() == DATA


def test_a_part_of_another_address_is_not_gone_on_with(site, tmp_path):
    site.files["set.bin"] = DATA
    unfinished("http://other/set.bin", tmp_path).write_bytes(b"something else")
    assert download(site.url("set.bin"), tmp_path, SHA).read_bytes() == DATA


def test_a_wrong_checksum_leaves_what_was_there(site, tmp_path):
    (tmp_path / "set.bin").write_bytes(DATA)
    with pytest.raises(InputError, match=r"remove .*set\.bin, which was there"):
        download(site.url("set.bin"), tmp_path, "0" * 64)
    assert (tmp_path / "set.bin").read_bytes() == DATA


def test_a_wrong_checksum_removes_the_file(site, tmp_path):
    site.files["set.bin"] = DATA
    with pytest.raises(InputError, match=rf"its SHA-256 is {SHA}, not {'0' * 64}; the file was removed"):
        download(site.url("set.bin"), tmp_path, "0" * 64)
    assert left(tmp_path) == []


def test_no_such_file(site, tmp_path):
    with pytest.raises(InputError, match=r"the server answers 404 \(Not here\); check the address"):
        download(site.url("set.bin"), tmp_path)
    assert left(tmp_path) == []


def test_nobody_answers(site, tmp_path):
    url = site.url("set.bin")
    nobody = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    nobody.server_close()  # a port that was free a moment ago
    with pytest.raises(InputError, match=r"no connection .*check the address and the network"):
        download(url.replace(site.address, f"http://127.0.0.1:{nobody.server_port}"), tmp_path)


def test_a_full_disk_keeps_what_is_there(site, tmp_path, monkeypatch):
    site.files["set.zip"] = zipped(**{"1.bin": bytes(3_000_000)})
    opened = Path.open

    def open_small(self: Path, mode: str = "r", *args, **kwargs):
        file = opened(self, mode, *args, **kwargs)
        if mode not in ("wb", "ab"):
            return file
        write = file.write

        class Small:
            """A file on a disk with room for one more chunk."""

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data: bytes) -> None:
                if file.tell() > 1_000_000:
                    raise OSError(errno.ENOSPC, "No space left on device")
                write(data)

        return Small()

    monkeypatch.setattr(Path, "open", open_small)
    with pytest.raises(InputError, match=r"set\.zip\.[0-9a-f]{8}\.part: the disk is full; make room and run it again"):
        download(site.url("set.zip"), tmp_path)
    monkeypatch.undo()
    assert left(tmp_path) == [unfinished(site.url("set.zip"), tmp_path).name]
    have = unfinished(site.url("set.zip"), tmp_path).stat().st_size
    assert 1_000_000 < have < 3_000_000
    assert download(site.url("set.zip"), tmp_path).read_bytes() == site.files["set.zip"]
    assert site.asked[-1] == f"bytes={have}-"


@pytest.mark.parametrize("url", ["set.zip", "ftp://a/b.zip", "file:///etc/passwd", "https://server/", "http:///a.zip"])
def test_what_is_no_address_of_a_file(tmp_path, url):
    with pytest.raises(SstlError, match="is not the address of a file"):
        download(url, tmp_path)


# --- archives ------------------------------------------------------------------------------------------------------


def tarred(path: Path, *members: tuple[str, bytes | str]) -> Path:
    """Write a tar.gz; a member whose content is text is a link to it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def test_zip_and_tar_are_unpacked(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(**pictures()))
    tarred(tmp_path / "b.tgz", *pictures().items())
    for name in ("a.zip", "b.tgz"):
        assert left(unpack(tmp_path / name, tmp_path / name[0])) == ["norain/1.png", "rain/1.png"]
    with pytest.raises(SstlError, match="a is there already"):
        unpack(tmp_path / "a.zip", tmp_path / "a")
    assert [unpacked_name(name) for name in ("a.zip", "b.tar.gz", "c.tgz", "v1.5.zip", ".zip")] == [
        *("a", "b", "c", "v1.5", ".zip")
    ]


@pytest.mark.parametrize("filters", [True, False], ids=["filters", "before Python 3.11.4"])
def test_a_link_within_a_tar_is_kept_if_it_can_be_told_from_one_that_leads_out(tmp_path, monkeypatch, filters):
    if not filters:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    elif not hasattr(tarfile, "data_filter"):
        pytest.skip("this Python has no filters")
    plain = tarred(tmp_path / "plain.tgz", *pictures().items())
    assert left(unpack(plain, tmp_path / "plain")) == ["norain/1.png", "rain/1.png"]
    linked = tarred(tmp_path / "linked.tgz", *pictures().items(), ("latest.png", "rain/1.png"))
    if filters:
        assert left(unpack(linked, tmp_path / "linked")) == ["latest.png", "norain/1.png", "rain/1.png"]
        return
    with pytest.raises(InputError, match=r"refused, as it holds 'latest\.png', which is no file"):
        unpack(linked, tmp_path / "linked")
    assert not (tmp_path / "linked").exists()


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "rain/../../evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_paths_out_of_the_folder_are_refused(tmp_path, name, kind):
    archive = tmp_path / "in" / "set.zip"
    archive.parent.mkdir()
    if kind == "zip":
        archive.write_bytes(zipped(**{"good.png": b"1", name: b"2"}))
    else:
        tarred(archive, ("good.png", b"1"), (name, b"2"))
    with pytest.raises(InputError, match=r"refused, as it holds '.*evil\.png', which leaves its folder"):
        unpack(archive, tmp_path / "in" / "set")
    assert left(tmp_path) == ["in/set.zip"]


@pytest.mark.parametrize("links", [[("out", "../..")], [("out", "/etc")], [("a", "."), ("a/b", ".."), ("a/b/c", "..")]])
def test_links_out_of_the_folder_are_refused(tmp_path, links):
    archive = tarred(tmp_path / "set.tgz", *links)
    with pytest.raises(InputError, match="refused, as"):
        unpack(archive, tmp_path / "set")
    assert left(tmp_path) == ["set.tgz"]


def test_a_link_in_a_zip_is_refused(tmp_path):
    link = zipfile.ZipInfo("out")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(InputError, match="refused, as it holds the link 'out'"):
        unpack(tmp_path / "set.zip", tmp_path / "set")


def test_a_damaged_archive_leaves_nothing(tmp_path):
    data = bytearray(zipped(**{"1.bin": DATA[:5000], "2.bin": DATA[:5000]}))
    data[5500] ^= 255  # in the second file
    (tmp_path / "set.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"damaged .*remove it and fetch it again"):
        unpack(tmp_path / "set.zip", tmp_path / "set")
    assert left(tmp_path) == ["set.zip"]


def test_a_disk_too_small_for_what_is_in_the_archive(tmp_path, monkeypatch):
    (tmp_path / "set.zip").write_bytes(zipped(**{"1.bin": DATA}))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(InputError, match="the disk is full; make room"):
        unpack(tmp_path / "set.zip", tmp_path / "set")
    assert left(tmp_path) == ["set.zip"]


# --- the command ---------------------------------------------------------------------------------------------------


def test_get_an_address(site, tmp_path, run_cli):
    site.files["my%20set.zip"] = zipped(**pictures())
    arguments = ("data", "get", "--url", site.url("my%20set.zip"), "-o", tmp_path / "data")
    outcome = run_cli(*arguments, "--json", tmp_path / "get.json")
    assert outcome.code == 0
    assert left(tmp_path / "data") == ["my set/norain/1.png", "my set/rain/1.png"]
    assert f"next: sstl data show {tmp_path / 'data' / 'my set'}" in outcome.out
    assert json.loads((tmp_path / "get.json").read_text())["written"] == str(tmp_path / "data" / "my set")
    assert run_cli("data", "show", tmp_path / "data").code == 0
    again = run_cli(*arguments)
    assert (again.code, len(site.asked)) == (2, 1)
    assert "is there already" in again.err


def test_get_a_known_set(site, tmp_path, run_cli, monkeypatch):
    site.files["set.zip"] = zipped(**pictures())
    sha256 = hashlib.sha256(site.files["set.zip"]).hexdigest()
    words = dict.fromkeys(("title", "what", "size", "licence", "where"), "x")
    sets = (KnownSet("mine", **words, url=site.url("set.zip"), sha256=sha256, traps=()),)
    monkeypatch.setattr("sstl.data.catalogue.known_sets", lambda: sets)
    monkeypatch.chdir(tmp_path)
    assert run_cli("data", "get", "mine").code == 0
    assert left(tmp_path) == ["mine/set/norain/1.png", "mine/set/rain/1.png"]


@pytest.mark.parametrize("name", [known.name for known in known_sets() if known.url is None])
def test_sets_without_an_address_say_where_to_get_them(run_cli, name):
    outcome = run_cli("data", "get", name)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert "get it by hand: " in outcome.err


def test_failures_are_one_line_and_end_with_1(site, tmp_path, run_cli):
    site.files["set.bin"] = DATA
    for arguments in ([site.url("none.zip")], [site.url("set.bin"), "--sha256", "0" * 64]):
        outcome = run_cli("data", "get", "-o", tmp_path / "data", "--url", *arguments)
        assert (outcome.code, outcome.err.count("sstl: error: ")) == (1, 1)
