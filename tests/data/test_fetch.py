"""Fetching, against real servers on this machine: whole, resumed and checked, or one sentence and nothing in place."""

import hashlib
import io
import os
import socket
import threading
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from web_server import serving

from privimage.data import fetch, web
from privimage.data.placed import placed
from privimage.data.published import File
from privimage.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SUMS = {"md5": hashlib.md5(CONTENT).hexdigest(), "sha256": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("no_proxy", "*")


def described(*shops, size=None, kind="md5", instead=()):
    return File("file.bin", tuple(shop.url for shop in shops), size, f"{kind}:{SUMS[kind]}", instead)


def got(folder):
    """What lies in the folder, besides the lock."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != fetch.LOCK}


def refusal(file, folder):
    with pytest.raises(UserError) as raised:
        fetch.obtain(file, folder)
    assert "file.bin" not in got(folder)
    text = str(raised.value)
    assert text.endswith(".") and "\n" not in text
    return text


def refused_by_server(folder, **how):
    with serving(CONTENT, **how) as shop:
        text = refusal(described(shop, size=len(CONTENT)), folder)
        assert f"fetch it by hand from {shop.url} and put it at {folder / 'file.bin'}." in text
        return text, shop


@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_arrives_whole_and_leaves_nothing_beside_it(tmp_path, size, kind):
    with serving(CONTENT) as shop:
        assert fetch.obtain(described(shop, size=size, kind=kind), tmp_path) == [tmp_path / "file.bin"]
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert len(shop.asked) == 1 and "Range" not in shop.asked[0]


def test_a_server_that_tells_no_length_is_enough(tmp_path):
    with serving(CONTENT, tell_length=False) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}


def test_nothing_is_asked_of_the_network_when_the_file_is_there(tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kw: pytest.fail("a socket was opened"))
    (tmp_path / "file.bin").write_bytes(CONTENT)
    file = File("file.bin", ("http://127.0.0.1:9/file.bin",), None, f"md5:{SUMS['md5']}")
    assert fetch.obtain(file, tmp_path) == [tmp_path / "file.bin"]


@pytest.mark.parametrize("name", ["unpacked", "raw/unpacked", "folder/"])
def test_what_serves_instead_is_enough_too(tmp_path, monkeypatch, name):
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kw: pytest.fail("a socket was opened"))
    other = tmp_path / (f"{name}batch" if name.endswith("/") else name)
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(b"anything")
    file = File("file.bin", ("http://127.0.0.1:9/file.bin",), None, f"md5:{SUMS['md5']}", (name.rstrip("/"),))
    assert fetch.obtain(file, tmp_path) == [tmp_path / name]


def test_an_empty_folder_serves_instead_of_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    assert placed(File("file.bin", (), None, "md5:", ("folder",)), tmp_path) == []


@pytest.mark.parametrize("there", [b"something of mine", CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])])
def test_another_file_of_that_name_is_refused_and_left_alone(tmp_path, there):
    (tmp_path / "file.bin").write_bytes(there)
    with serving(CONTENT) as shop, pytest.raises(UserError, match=r"file.bin has .*published file has.*; delete it"):
        fetch.obtain(described(shop, size=len(CONTENT)), tmp_path)
    assert got(tmp_path) == {"file.bin": there} and shop.asked == []


def test_a_folder_or_a_dead_link_of_that_name_is_refused(tmp_path):
    (tmp_path / "file.bin").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.bin").symlink_to(tmp_path / "nowhere")
    for folder in (tmp_path, tmp_path / "other"):
        with pytest.raises(UserError, match="is not a file that can be read; delete it"):
            fetch.obtain(File("file.bin", (), None, "md5:0"), folder)


def test_a_server_that_hangs_up_is_asked_for_the_rest(tmp_path):
    with serving(CONTENT, version='"1"', dies_after=[100_000, 50_000]) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert [asked.get("Range") for asked in shop.asked] == [None, "bytes=100000-", "bytes=150000-"]
    assert [asked.get("If-Range") for asked in shop.asked] == [None, '"1"', '"1"']


def test_gains_renew_the_number_of_tries(tmp_path):
    with serving(CONTENT, dies_after=[20_000] * 10) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT} and len(shop.asked) == 11


def test_without_any_gain_it_gives_up_after_three_tries_and_keeps_what_it_has(tmp_path):
    text, shop = refused_by_server(tmp_path, ranges=False, dies_after=[1000] * 9)
    assert len(shop.asked) == 1 + 2
    assert "the connection ended after 1,000 of 300,000 bytes" in text and "goes on from the 1,000 bytes" in text
    assert got(tmp_path)["file.bin.part"] == CONTENT[:1000]


def test_the_next_start_goes_on_where_the_last_one_ended(tmp_path):
    with serving(CONTENT, dies_after=[100_000, 0, 0, 0]) as shop:
        file = described(shop)
        refusal(file, tmp_path)
        before = len(shop.asked)
        shop.dies_after.clear()
        fetch.obtain(file, tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert [asked.get("Range") for asked in shop.asked[before:]] == ["bytes=100000-"]


def test_a_server_without_ranges_starts_anew(tmp_path):
    with serving(CONTENT, ranges=False) as shop:
        (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT} and len(shop.asked) == 1


def test_a_file_that_changed_on_the_server_is_not_glued_to_the_old_part(tmp_path):
    old = bytes(len(CONTENT))
    with serving(old, version='"old"', dies_after=[100_000, 0, 0, 0]) as shop:
        file = described(shop)
        refusal(file, tmp_path)
        shop.content, shop.version = CONTENT, '"new"'
        shop.asked.clear()
        shop.dies_after.clear()
        fetch.obtain(file, tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert len(shop.asked) == 1 and shop.asked[0]["If-Range"] == '"old"'


@pytest.mark.parametrize("note", [None, "{", '{"url": "x", "version": "y"}', "[]", '{"url": 1}'])
def test_an_old_part_that_does_not_fit_costs_one_more_try(tmp_path, note):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    if note:
        (tmp_path / "file.bin.part.json").write_text(note)
    with serving(CONTENT) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert [asked.get("Range") for asked in shop.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("size", [None, len(CONTENT)])
@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more", b"x" * len(CONTENT)])
def test_a_part_as_long_as_the_file_or_longer_is_taken_or_dropped_by_its_checksum(tmp_path, part, size):
    (tmp_path / "file.bin.part").write_bytes(part)
    with serving(CONTENT) as shop:
        fetch.obtain(described(shop, size=size), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert len(shop.asked) <= 2


def test_a_range_other_than_the_one_asked_for_is_not_written(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with serving(CONTENT, wrong_start=7) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT} and len(shop.asked) == 2


@pytest.mark.parametrize("how", [{"size": None}, {"size": len(CONTENT)}])
def test_wrong_bytes_are_deleted_and_not_asked_for_again(tmp_path, how):
    with serving(bytes(len(CONTENT))) as shop:
        text = refusal(described(shop, **how), tmp_path)
    assert "what arrived has the md5 checksum" in text and SUMS["md5"] in text and "was deleted" in text
    assert got(tmp_path) == {} and len(shop.asked) == 1


def test_a_page_of_another_size_is_refused_before_it_is_written(tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    with serving(b"<html>moved</html>", ranges=False) as shop:
        text = refusal(described(shop, size=len(CONTENT)), tmp_path)
    assert "it offers 18 bytes, and the published file has 300,000" in text
    assert got(tmp_path) == {"file.bin.part": CONTENT[:1000]}


def test_a_body_without_an_end_is_cut_at_the_published_size(tmp_path):
    with serving(CONTENT * 3, tell_length=False) as shop:
        assert "it sends more than the 300,000 bytes" in refusal(described(shop, size=len(CONTENT)), tmp_path)
    assert len(got(tmp_path)["file.bin.part"]) <= len(CONTENT)


def test_a_length_that_is_a_lie_is_found_out(tmp_path):
    with serving(CONTENT, lies=5) as shop:
        text = refusal(described(shop), tmp_path)
    assert "the connection ended after 300,000 of 300,005 bytes" in text


@pytest.mark.parametrize(("status", "told", "tries"), [
    (401, "it asks for a log-in", 1),
    (403, "it refuses access", 1),
    (404, "it has no such file", 1),
    (418, "it does not give the file", 1),
    (204, "it does not give the file", 1),
    (429, "it does not give the file", 3),
    (500, "it fails", 3),
    (503, "it fails", 3),
])  # fmt: skip
def test_a_refusing_server_is_quoted_and_asked_again_only_if_that_may_help(tmp_path, status, told, tries):
    text, shop = refused_by_server(tmp_path, statuses=[status] * 9)
    assert f"{told} (HTTP {status})" in text and len(shop.asked) == tries


def test_a_passing_failure_is_passed_over(tmp_path):
    with serving(CONTENT, statuses=[503, 500]) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT} and len(shop.asked) == 3


def test_the_next_mirror_goes_on_with_what_the_first_one_gave(tmp_path):
    with serving(CONTENT, dies_after=[1000, 0, 0, 0]) as first, serving(CONTENT, version='"2"') as second:
        fetch.obtain(described(first, second), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}
    assert [asked.get("Range") for asked in second.asked] == ["bytes=1000-"]


def test_the_reasons_of_all_mirrors_are_told(tmp_path):
    with serving(CONTENT, statuses=[404]) as first, serving(CONTENT, statuses=[403]) as second:
        text = refusal(described(first, second), tmp_path)
    assert f"({first.url}: it has no such file (HTTP 404); {second.url}: it refuses access (HTTP 403))" in text
    with serving(CONTENT, statuses=[404]) as first, serving(CONTENT, statuses=[404]) as second:
        text = refusal(described(first, second), tmp_path)
    assert f"({first.url}, {second.url}: it has no such file (HTTP 404))" in text


def test_redirections_are_followed(tmp_path):
    with serving(CONTENT) as shop, serving(b"", location=shop.url) as other:
        fetch.obtain(described(other), tmp_path)
    assert got(tmp_path) == {"file.bin": CONTENT}


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://a.b/c", "data:,x", "gopher://x/", "http://["])
def test_redirections_off_the_web_are_refused(tmp_path, to):
    text, _ = refused_by_server(tmp_path, location=to)
    assert f"it redirects to `{to}`, which is not followed" in text


def test_a_redirection_from_https_to_http_is_refused():
    with pytest.raises(web.Trouble, match="not followed"):
        web._redirected("https://a.b/c", "http://a.b/c")
    assert web._redirected("http://a.b/c", "https://a.b/d") == "https://a.b/d"
    assert web._redirected("https://a.b/c/", "d e") == "https://a.b/c/d%20e"


def test_a_circle_of_redirections_ends(tmp_path):
    text, shop = refused_by_server(tmp_path, location="/file.bin")
    assert "it redirects without an end" in text and len(shop.asked) == web.MAX_REDIRECTS + 1


def test_a_silent_server_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "TIMEOUT", 0.05)
    text, shop = refused_by_server(tmp_path, wait=threading.Event())
    assert "no answer for 0.05 s" in text and len(shop.asked) == 3


def test_a_refused_connection_and_an_unknown_name_are_told_apart(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/file.bin"
    assert "the connection was refused" in refusal(File("file.bin", (url,), None, "md5:0"), tmp_path)

    def unknown(*args, **kw):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    text = refusal(File("file.bin", ("https://nowhere.invalid/file.bin",), None, "md5:0"), tmp_path)
    assert "the name of the server cannot be looked up" in text


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_a_full_disk_is_one_sentence(tmp_path):
    (tmp_path / "file.bin.part").symlink_to("/dev/full")
    with serving(CONTENT, ranges=False) as shop, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetch, "_forget", lambda part: None)
        text = refusal_of_disk(described(shop), tmp_path)
    assert "No space left on device" in text and "make room on the disk" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with serving(CONTENT) as shop:
        assert "Permission denied" in refusal_of_disk(described(shop), tmp_path)


def refusal_of_disk(file, folder):
    with pytest.raises(UserError) as raised:
        fetch.obtain(file, folder)
    assert not (folder / "file.bin").exists()
    return str(raised.value)


def test_a_second_download_into_the_same_folder_says_why_it_stops(tmp_path):
    with fetch.alone(tmp_path / "new"):
        with pytest.raises(UserError, match="another download into .*new is running"), fetch.alone(tmp_path / "new"):
            pass
        with fetch.alone(tmp_path / "other"):
            pass
    with fetch.alone(tmp_path / "new"):
        pass


def zipped(**members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"gzip/{name}.gz", content)
    return packed.getvalue()


def archive_of(shop, members):
    md5 = hashlib.md5(shop.content).hexdigest()
    return File("file.bin", (shop.url,), None, f"md5:{md5}", unpack=tuple(f"gzip/{name}.gz" for name in members))


def test_the_members_of_an_archive_land_beside_it_and_are_not_fetched_twice(tmp_path):
    with serving(zipped(a=b"first", b=b"second", other=b"not asked for")) as shop:
        file = archive_of(shop, "ab")
        wanted = [tmp_path / name for name in ("file.bin", "a.gz", "b.gz")]
        assert fetch.obtain(file, tmp_path) == fetch.obtain(file, tmp_path) == wanted
        assert got(tmp_path) == {"file.bin": shop.content, "a.gz": b"first", "b.gz": b"second"}
        (tmp_path / "file.bin").unlink()
        (tmp_path / "b.gz").rename(tmp_path / "b")
        assert fetch.obtain(file, tmp_path) == [tmp_path / "a.gz", tmp_path / "b"]
        (tmp_path / "gzip").mkdir()
        (tmp_path / "a.gz").rename(tmp_path / "gzip" / "a.gz")
        assert fetch.obtain(file, tmp_path) == [tmp_path / "gzip" / "a.gz", tmp_path / "b"]
        assert len(shop.asked) == 1
        (tmp_path / "gzip" / "a.gz").unlink()
        fetch.obtain(file, tmp_path)
    assert len(shop.asked) == 2 and (tmp_path / "a.gz").read_bytes() == b"first"


def test_a_member_is_not_written_over_another_file(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"mine!")
    with serving(zipped(a=b"first")) as shop, pytest.raises(UserError, match=r"a.gz is not what .*file.bin holds"):
        fetch.obtain(archive_of(shop, "ab"), tmp_path)
    assert (tmp_path / "a.gz").read_bytes() == b"mine!"


@pytest.mark.parametrize("content", [zipped(b=b"no a"), b"no archive", zipped(a=CONTENT)[:-30]])
def test_an_archive_that_cannot_be_unpacked_is_one_sentence(tmp_path, content):
    with serving(content) as shop, pytest.raises(UserError, match="file.bin cannot be unpacked .*; delete it"):
        fetch.obtain(archive_of(shop, "a"), tmp_path)


def test_the_size_is_told_as_far_as_the_server_tells_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fetch, "MIB", 2**16)  # five steps, the last of them not filled
    with serving(CONTENT, dies_after=[100_000]) as shop:
        fetch.obtain(described(shop), tmp_path)
    assert "file.bin (MiB): 5/5 in" in capsys.readouterr().err
    (tmp_path / "file.bin").unlink()
    with serving(CONTENT, tell_length=False) as shop:
        fetch.obtain(described(shop), tmp_path)
    told = capsys.readouterr().err
    assert "file.bin (MiB): 5 in" in told


def test_an_interruption_keeps_the_part(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "MIB", 2**16)

    def interrupted(steps, *args):
        next(steps)
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "progress", interrupted)
    with serving(CONTENT) as shop, suppress(KeyboardInterrupt):
        fetch.obtain(described(shop), tmp_path)
    assert set(got(tmp_path)) == {"file.bin.part", "file.bin.part.json"}
    assert CONTENT.startswith(got(tmp_path)["file.bin.part"])
