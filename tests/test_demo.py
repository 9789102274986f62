"""The web page: derain, look, adapt, stop; limits; two users; nothing from elsewhere and nothing given away."""

from __future__ import annotations

import http.client
import importlib.util
import os
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from chromium import Chromium, needs_chromium
from PIL import Image
from skimage import data
from test_video import pan, write_clip

from sstl.demo.work import ADAPTED, Desk, Limits, Stopped, Task, View
from sstl.networks import create_network, save_weights
from sstl.rain import render

LIMITS = Limits(files=3, bytes=1_000_000, pixels=300_000, clip_seconds=2, steps=4)
TINY = "tiny.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Things that users drop, and tiny weights."""
    place = tmp_path_factory.mktemp("dropped")
    save_weights(place / TINY, create_network("joint", size="tiny"))
    Image.fromarray(data.astronaut()[:160, 140:360]).save(place / "face.jpg")
    Image.fromarray(data.coffee()[:160, 140:360]).save(place / "cup.png")
    face = torch.from_numpy(data.astronaut()[:160, 140:360].copy()).permute(2, 0, 1)[None] / 255
    rainy = render(face, "heavy", 1, [0]).rainy[0]
    Image.fromarray((rainy.permute(1, 2, 0) * 255).byte().numpy()).save(place / "rainy.png")
    Image.new("L", (1000, 1000)).save(place / "wide.png")
    (place / "broken.jpg").write_bytes(b"not a photo")
    (place / "notes.txt").write_text("not a photo either")
    (place / "huge.png").write_bytes(b"\x89PNG" + bytes(2_000_000))
    write_clip(place / "clip.mp4", pan(4))
    write_clip(place / "long.mp4", pan(3), pts=[0, 9000, 300_000])
    return place


@pytest.fixture
def desk(tmp_path: Path, folder: Path) -> Desk:
    return Desk(tmp_path / "desk", [str(folder / TINY)], LIMITS)


def last(views: Iterator[View]) -> View:
    return [*views][-1]


def test_photos_and_clips_are_derained(desk, folder):
    view = last(desk.derain("u", [folder / "face.jpg", folder / "clip.mp4", folder / "broken.jpg"], TINY))
    assert view.status.startswith("Derained 2 of 3. Not used: broken.jpg: not an image that can be read")
    assert str(folder) not in view.status
    assert "the network sees rain on" in view.page
    assert {"clip.mp4, a frame", "face.jpg"} == set(re.findall(r"<h3>(.*?)</h3>", view.page))
    assert ">Streaks<" in view.page
    assert ">Rain map<" in view.page
    with zipfile.ZipFile(view.archive) as archive:
        assert {"face.jpg", "face.streak.png", "face.mask.png", "clip.mp4", "before-and-after.html"} == set(
            archive.namelist()
        )
    assert view.video == desk.folder / "u" / "derained" / "clip.mp4"
    desk.forget("u")
    assert not (desk.folder / "u").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "Drop some photos or a short clip first."),
        (["notes.txt"], "notes.txt: neither a photo nor a clip."),
        (["gone.jpg"], "gone.jpg: no longer here; drop it again."),
        (["huge.png"], "huge.png: larger than 1 MB."),
        (["wide.png"], "wide.png: "),
        (["long.mp4"], "long.mp4: 3 seconds are more than 2; cut it."),
        (["face.jpg", "face.jpg", "face.jpg", "cup.png"], "cup.png: only 3 files are taken at once."),
    ],
)
def test_what_is_too_much_is_refused(desk, folder, names, message):
    view = last(desk.derain("u", [folder / name for name in names], TINY))
    assert message in view.status
    assert (view.page is None) == (len(names) < 4)
    assert view.share is None


def test_weights_of_one_name_can_all_be_chosen(tmp_path):
    desk = Desk(tmp_path, ["runs/a/weights.safetensors", "runs/b/weights.safetensors", "runs/c/mine.safetensors"])
    given = ["runs/a/weights.safetensors", "runs/b/weights.safetensors", "mine.safetensors"]
    assert [*desk.weights][:4] == ["joint-small", *given]


def test_photos_of_one_name_are_all_kept(desk, folder):
    view = last(desk.derain("u", [folder / "face.jpg"] * 2, TINY))
    with zipfile.ZipFile(view.archive) as archive:
        assert {"face.jpg", "face-2.jpg"} <= set(archive.namelist())


def test_work_ends_when_stopped_and_when_it_takes_too_long(desk, folder):
    task = Task("u")
    task.say("a", 0)
    task.stop.set()
    with pytest.raises(Stopped, match=r"^Stopped\.$"):
        task.say("b", 0)
    slow = Desk(desk.folder, [str(folder / TINY)], Limits(seconds=-1))
    assert last(slow.derain("u", [folder / "face.jpg"], TINY)).status.startswith("Stopped: it took longer")


def test_who_comes_second_waits_in_line_and_is_served_after_the_first(desk, folder):
    first = Task("first")
    desk.line.append(first)
    views = desk.derain("second", [folder / "face.jpg"], TINY)
    assert next(views).status == "Waiting in line, 1 before you."
    desk.line.remove(first)
    assert last(views).status == "Derained 1."
    assert desk.line == []


def test_who_waits_in_line_can_stop_and_leave_and_holds_up_nobody(desk, folder):
    desk.line.append(Task("first"))
    views = desk.derain("second", [folder / "face.jpg"], TINY)
    next(views)
    desk.stop("second")
    assert last(views).status == "Stopped."
    views = desk.derain("third", [folder / "face.jpg"], TINY)
    next(views)
    views.close()
    desk.forget("third")
    assert [task.user for task in desk.line] == ["first"]


def test_the_end_of_the_page_waits_for_the_end_of_what_is_under_way(desk, folder):
    views = desk.adapt("u", [folder / "rainy.png"], TINY, 4)
    next(views)
    desk.close()
    assert not desk.line
    assert last(views).status == "Stopped."


def test_a_second_press_does_nothing_until_the_first_is_told_to_stop(desk, folder):
    first = Task("u")
    desk.line.append(first)
    assert [*desk.derain("u", [folder / "face.jpg"], TINY)] == [View()]
    first.stop.set()
    views = desk.derain("u", [folder / "face.jpg"], TINY)
    assert next(views).status == "Waiting in line, 1 before you."
    desk.line.remove(first)
    assert last(views).status == "Derained 1."


def test_more_than_may_wait_in_line_are_turned_away(desk, folder):
    desk.line.extend(Task(str(number)) for number in range(desk.limits.waiting + 1))
    view = last(desk.derain("u", [folder / "face.jpg"], TINY))
    assert view.status == "Too many are waiting already; try again in a few minutes."


@pytest.mark.parametrize(("name", "dry"), [("face.jpg", True), ("rainy.png", False)])
def test_an_adaptation_says_what_the_gate_said(desk, folder, name, dry):
    status = last(desk.adapt("u", [folder / name], TINY, 4)).status
    assert status.startswith("Nothing to adapt to") == dry
    assert status.startswith(("Nothing to adapt to", "No gain", "No network", "Adapted: "))
    assert status.endswith("Derained 1.")


def test_what_went_wrong_in_an_adaptation_is_said(desk, folder):
    (folder / "empty.safetensors").write_bytes(b"")
    broken = Desk(desk.folder, [str(folder / "empty.safetensors")], LIMITS)
    view = last(broken.adapt("u", [folder / "face.jpg"], "empty.safetensors", 2))
    assert view.status.startswith("That did not work: the adaptation failed (")
    assert "empty.safetensors" in view.status


needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not run: no gradio")
# In a process of its own: gradio leaves event loops and sockets to the interpreter's exit.
SERVE = f"""
import sys
from pathlib import Path
from sstl.demo.page import serve
from sstl.demo.work import Desk, Limits
serve(Desk(Path(sys.argv[1]), [sys.argv[2]], {LIMITS}), on_start=lambda address: print(address, flush=True))
"""


@pytest.fixture(scope="module")
def site(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served; its address."""
    command = [sys.executable, "-c", SERVE, str(tmp_path_factory.mktemp("served")), str(folder / TINY)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


def get(site: str, path: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(site.split("/")[2], timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode("utf-8", "replace")
    connection.close()
    return answer.status, dict(answer.getheaders()), text


@needs_gradio
def test_the_page_loads_nothing_from_elsewhere(site):
    status, headers, text = get(site, "/")
    assert status == 200
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert re.findall(r"<(?:script|link|iframe|img)[^>]+(?:src|href)=\"?https?://(?!127\.0\.0\.1)[^>]*>", text) == []
    assert "fonts.g" not in text
    assert "fonts.g" not in get(site, "/theme.css")[2]
    assert re.search(r'"analytics_enabled":\s*true', text) is None


@needs_gradio
@pytest.mark.parametrize("route", ["/gradio_api/file=", "/gradio_api/file/", "/file="])
def test_no_file_outside_the_folder_is_given_out(site, folder, route):
    for path in (folder / "face.jpg", Path(__file__), "tests/test_demo.py", "../../../../etc/passwd", "/etc/passwd"):
        status, _, text = get(site, f"{route}{path}")
        assert status in (403, 404)
        assert "root:" not in text


@needs_gradio
def test_a_port_that_is_taken_is_an_error(site, run_process):
    done = run_process("-m", "sstl", "demo", "--port", site.rstrip("/").rpartition(":")[2])
    assert done.code == 2
    assert re.search(r"sstl: error: port \d+ of 127.0.0.1 cannot be used .* give another one by --port\.$", done.err)


def test_gradio_that_is_missing_is_an_error(run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    done = run_cli("demo")
    assert done.code == 2
    assert "pip install gradio" in done.err


class User:
    """Someone at the page, in a browser of their own."""

    def __init__(self, browser: Chromium, site: str) -> None:
        self.browser = browser
        browser.open(site)
        browser.wait("!!document.getElementById('derain') && !!document.querySelector('#files input[type=file]')", 60)
        browser.wait("document.getElementById('status')?.getAttribute('aria-live') === 'polite'", 60)

    def drop(self, *files: Path) -> None:
        """Put files into the field, and wait until they are listed."""
        root = self.browser.call("DOM.getDocument")["root"]["nodeId"]
        field = self.browser.call("DOM.querySelector", nodeId=root, selector="#files input[type=file]")["nodeId"]
        self.browser.call("DOM.setFileInputFiles", nodeId=field, files=[str(file) for file in files])

    def listed(self, name: str) -> None:
        stem, suffix = name.rsplit(".", 1)
        self.browser.wait(f"document.querySelector('#files').textContent.includes('{stem[:3]}')", 120)
        self.browser.wait(f"document.querySelector('#files').textContent.includes('.{suffix}')", 120)

    def press(self, button: str) -> None:
        self.browser.value(f"document.getElementById('{button}').click()")

    def tab_to(self, selector: str) -> None:
        """Press Tab until the element has the focus; the list of files may be drawn anew meanwhile and lose it."""
        for _ in range(30):
            for kind in ("keyDown", "keyUp"):
                self.browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
            if self.browser.value(f"document.activeElement.matches({selector!r})"):
                return
        raise AssertionError(f"cannot be reached by Tab: {selector}")

    def says(self, text: str, seconds: float = 240) -> None:
        self.browser.wait(f"document.getElementById('status').textContent.includes({text!r})", seconds)

    def inside(self, expression: str) -> Any:
        return self.browser.value(f"(d => {expression})(document.querySelector('#comparison iframe').contentDocument)")


def saved(path: Path, seconds: float = 60) -> Path:
    """Wait until a download is complete; the browser gives it its name then."""
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"never saved: {path}"
        time.sleep(0.05)
    return path


def choose(user: User) -> None:
    """The tiny weights, by the keyboard."""
    user.browser.value("document.querySelector('#weights input').focus()")
    for key in ("ArrowDown", "Enter"):
        user.browser.press(key)
    user.browser.wait(f"document.querySelector('#weights input').value === '{TINY}'", 60)


@pytest.fixture
def user(site: str, tmp_path: Path) -> Iterator[User]:
    with Chromium(tmp_path / "profile") as browser:
        yield User(browser, site)


@needs_chromium
@needs_gradio
def test_upload_derain_slider_and_download(user, site, folder, tmp_path):
    user.drop(folder / "face.jpg", folder / "broken.jpg")
    user.listed("face.jpg")
    user.press("derain")
    user.says("Derained 1 of 2. Not used: broken.jpg")
    user.browser.wait("!!document.querySelector('#comparison iframe')?.contentDocument?.querySelector('.split')", 60)
    user.inside("d.querySelector('.split').focus()")
    before = float(user.inside("d.querySelector('.split').value"))
    user.browser.press("ArrowRight")
    assert float(user.inside("d.querySelector('.split').value")) > before
    user.inside("[...d.querySelectorAll('.switch label')].at(-1).click()")
    assert user.inside("!d.querySelectorAll('img.layer')[1].hidden")
    user.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
    user.browser.wait("!!document.getElementById('download')", 60)
    user.press("download")
    with zipfile.ZipFile(saved(tmp_path / "saved" / "derained.zip")) as archive:
        assert {"face.jpg", "before-and-after.html"} <= set(archive.namelist())
    loaded = user.browser.value("performance.getEntriesByType('resource').map(e => e.name)")
    assert len(loaded) > 10
    assert [name for name in loaded if not name.startswith((site, "blob:", "data:"))] == []


@needs_chromium
@needs_gradio
def test_a_clip_is_derained_and_can_be_saved(user, folder, tmp_path):
    choose(user)
    user.drop(folder / "clip.mp4")
    user.listed("clip.mp4")
    user.press("derain")
    user.says("Derained 1.")
    user.browser.wait("!!document.querySelector('#comparison iframe')?.contentDocument?.querySelector('h3')", 60)
    assert user.inside("d.querySelector('h3').textContent") == "clip.mp4, a frame"
    user.browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
    user.browser.wait("!!document.getElementById('download')", 60)
    user.press("download")
    with zipfile.ZipFile(saved(tmp_path / "saved" / "derained.zip")) as archive:
        archive.extract("clip.mp4", tmp_path)
    with av.open(tmp_path / "clip.mp4") as clip:
        assert sum(1 for _ in clip.decode(video=0)) == 4
    user.browser.wait("!!document.querySelector('video')?.src", 60)


@needs_chromium
@needs_gradio
def test_adapt_and_stop(user, folder):
    choose(user)
    user.drop(folder / "rainy.png")
    user.listed("rainy.png")
    user.press("adapt")
    user.says("Adapting to your photos, matching rain to them")
    assert user.browser.value("!!document.querySelector('#status progress[aria-label]')")
    user.press("adapt")  # once more, which does nothing
    user.press("stop")
    user.says("Stopped.")
    user.press("adapt")
    user.says("Derained 1.")
    user.browser.wait(f"document.querySelector('#weights input').value === '{ADAPTED}'", 60)


@needs_chromium
@needs_gradio
def test_a_wrong_file_and_a_huge_one_are_refused(user, folder):
    user.drop(folder / "huge.png")
    user.browser.wait("document.body.innerText.includes('exceed the maximum allowed size')", 60)
    assert user.browser.value("document.querySelector('#files').textContent.includes('Upload')")
    user.drop(folder / "notes.txt")
    user.browser.wait("document.body.innerText.includes('Invalid file type: notes.txt')", 60)
    user.press("derain")
    user.says("Drop some photos or a short clip first.")


@needs_chromium
@needs_gradio
def test_two_users_at_once_get_their_own(site, folder, tmp_path):
    with Chromium(tmp_path / "one") as one, Chromium(tmp_path / "two") as two:
        users = [User(one, site), User(two, site)]
        for user, name in zip(users, ("face.jpg", "cup.png"), strict=True):
            user.drop(folder / name)
            user.listed(name)
        for user in users:
            user.press("derain")
        for user, name in zip(users, ("face.jpg", "cup.png"), strict=True):
            user.says("Derained 1.")
            user.browser.wait(
                "!!document.querySelector('#comparison iframe')?.contentDocument?.querySelector('h3')", 60
            )
            assert user.inside("[...d.querySelectorAll('h3')].map(h => h.textContent)") == [name]


@needs_chromium
@needs_gradio
def test_a_phone_a_keyboard_and_a_screen_reader_suffice(user, folder):
    user.browser.resize(375, 800)
    user.drop(folder / "face.jpg")
    user.listed("face.jpg")
    user.tab_to("#weights input")
    user.browser.wait("document.querySelector('[role=option]')?.checkVisibility()")
    user.tab_to("#derain")
    user.browser.wait("!document.querySelector('[role=option]')?.checkVisibility()")
    user.browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", text="\r")
    user.says("Derained 1.")
    user.browser.wait("!!document.querySelector('#comparison iframe')?.contentDocument?.querySelector('.split')", 60)
    assert user.browser.value("document.documentElement.scrollWidth") <= 375
    assert user.inside("d.documentElement.scrollWidth") <= 375
    nodes = user.browser.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "textbox", "spinbutton", "combobox", "listbox", "link", "Iframe", "image")
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(controls) >= 7
    assert [node["role"]["value"] for node in controls if not node.get("name", {}).get("value", "").strip()] == []
    assert [node["name"]["value"] for node in controls if re.fullmatch(r"\w+\.\w+", node["name"]["value"])] == []
    assert user.browser.value("document.documentElement.lang") == "en"
