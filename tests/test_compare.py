"""Comparing: the page of several runs, and blind votes over real HTTP, with their statistics."""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from chromium import Chromium, needs_chromium
from conftest import Outcome
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from test_report import Reader

from sstl.errors import ConfigError, SstlError
from sstl.metrics import preference, sign_test, wilson
from sstl.networks import Network, save_weights
from sstl.report import plots
from sstl.report.blind import Ballot, find_trials, in_random_order
from sstl.report.blind_server import BlindServer
from sstl.report.page import render
from sstl.report.runs import differing, flatten, read_runs
from sstl.report.runs_page import runs_page

RunCli = Callable[..., Outcome]
NAMES = ("coffee", "street/chelsea", "rocket")


def picture(path: Path, level: int = 0, size: tuple[int, int] = (48, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    crop = data.coffee()[: size[1], : size[0]].astype(int) + level
    Image.fromarray(crop.clip(0, 255).astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two restorations and the photos, one of them named with another suffix."""
    for level, folder in enumerate("ab"):
        for name in NAMES:
            picture(tmp_path / folder / f"{name}.png", 20 * level)
            picture(tmp_path / folder / f"{name}.streak.png")
            picture(tmp_path / folder / f"{name}.doubt.png")
    for name in NAMES[:2]:
        picture(tmp_path / "photos" / f"{name}.jpg", 60)
    return tmp_path / "a", tmp_path / "b", tmp_path / "photos"


def open_ballot(folders: tuple[Path, Path, Path], path: Path, seed: int | None = 0) -> Ballot:
    a, b, photos = folders
    return Ballot(a, b, find_trials(a, b, photos)[0], path, seed)


@pytest.fixture
def ballot(folders: tuple[Path, Path, Path], tmp_path: Path) -> Ballot:
    return open_ballot(folders, tmp_path / "votes.jsonl")


@pytest.fixture
def server(ballot: Ballot) -> Iterator[BlindServer]:
    with BlindServer(ballot) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: BlindServer, path: str, body: object = None, method: str | None = None, **headers: str
) -> SimpleNamespace:
    """Make a request as the page does, with some headers replaced (none if empty), and return what came."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    own = {"Host": f"127.0.0.1:{server.server_port}"}
    payload = None
    if body is not None:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        own |= {"Origin": server.address.rstrip("/"), "Content-Type": "application/json"}
        own["Content-Length"] = str(len(payload))
    own = {
        name: value for name, value in {**own, **{k.replace("_", "-"): v for k, v in headers.items()}}.items() if value
    }
    connection.putrequest(method or ("POST" if payload is not None else "GET"), path, skip_host=True)
    for name, value in own.items():
        connection.putheader(name, value)
    connection.endheaders(payload)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    kind = answer.headers.get_content_type()
    tree = json.loads(content) if kind == "application/json" else None
    return SimpleNamespace(status=answer.status, headers=answer.headers, body=content, kind=kind, json=tree)


def pixels_of(body: bytes, tmp_path: Path) -> np.ndarray:
    (tmp_path / "got.png").write_bytes(body)
    return np.asarray(Image.open(tmp_path / "got.png"))


# Statistics


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_wilson_interval_solves_its_equation(successes, more):
    trials, z = max(1, successes + more), 1.959963984540054
    share = successes / trials
    low, high = wilson(successes, trials)
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:  # |share - p| is z standard deviations under p
            assert abs(share - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / trials), abs=1e-9)


def test_the_sign_test_is_the_binomials_two_tails():
    assert [sign_test(0, 0), sign_test(3, 3), sign_test(5, 0)] == [1, 1, 2 / 2**5]
    assert sign_test(8, 2) == sign_test(2, 8) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert 0 <= sign_test(3000, 100) < 1e-300  # without overflow


def test_same_votes_count_in_neither_share_nor_test():
    found = preference(6, 100, 2)
    assert (found.share, found.p) == (0.75, sign_test(6, 2))
    assert preference(0, 4, 0).share is None
    with pytest.raises(ValueError, match="no trials"):
        wilson(0, 0)


# Which photos, in which order


def test_photos_are_paired_by_name_without_their_layers(folders):
    a, b, photos = folders
    trials, failures = find_trials(a, b, photos)
    assert [trial.name for trial in trials] == sorted(NAMES)
    assert [trial.photo and trial.photo.name for trial in trials] == ["coffee.jpg", None, "chelsea.jpg"]
    assert failures == []


def test_what_does_not_fit_is_listed(folders):
    a, b, _ = folders
    picture(a / "alone.png")
    picture(b / "rocket.png", size=(32, 32))
    (b / "coffee.png").write_bytes(b"no picture")
    trials, failures = find_trials(a, b)
    assert [trial.name for trial in trials] == ["street/chelsea"]
    assert len(failures) == 3
    for words in ("alone.png has no partner", "rocket.png is 32 x 32", "coffee.png: "):
        assert any(words in failure for failure in failures)


def test_folders_without_a_common_photo_are_refused(run_cli, folders, tmp_path):
    a, b, _ = folders
    picture(tmp_path / "c" / "other.png")
    for call, words in {
        (a, tmp_path / "c"): "no photo in common",
        (a, a): "the same folder",
        (a, tmp_path / "none"): "no such folder",
        (a, b, "--photos", tmp_path / "c"): "none of the photos by name",
    }.items():
        done = run_cli("compare", "--blind", *call, "--report", "--votes", tmp_path / "v.jsonl")
        assert done.code == 2
        errors = [line for line in done.err.replace("\r", "\n").splitlines() if line.startswith("sstl: error")]
        assert len(errors) == 1
        assert words in errors[0]


def test_the_order_follows_from_the_seed_and_the_sides_are_balanced(folders):
    trials = [*find_trials(*folders[:2])[0]] * 20
    first, again, other = (in_random_order(trials, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(trial.left == "a" for trial in first) == len(trials) // 2
    assert {trial.left for trial in first[:20]} == {"a", "b"}


def test_without_a_seed_nobody_knows_the_order(folders, tmp_path):
    seeds = {open_ballot(folders, tmp_path / "votes.jsonl", None).seed for _ in range(4)}
    assert len(seeds) == 4


# The votes


def test_votes_are_written_at_once_and_go_on(folders, ballot):
    assert ballot.vote(0, "left")
    assert not ballot.vote(0, "left")
    assert not ballot.vote(2, "left")
    again = open_ballot(folders, ballot.path, None)
    assert (again.seed, again.position, again.votes) == (0, 1, ballot.votes)
    trial = again.trials[0]
    assert again.votes[0]["winner"] == trial.left
    assert again.vote(1, "same")
    assert again.undo(2)
    assert again.position == 1
    assert again.vote(1, "right")
    assert again.votes[1]["winner"] == {"a": "b", "b": "a"}[again.trials[1].left]
    assert len(ballot.path.read_text().splitlines()) == 3
    assert {p.name for p in ballot.path.parent.iterdir()} == {"a", "b", "photos", "votes.jsonl"}


def test_votes_of_other_pictures_are_refused(folders, ballot):
    a, b, photos = folders
    ballot.vote(0, "left")
    with pytest.raises(ConfigError, match="A and B are swapped"):
        open_ballot((b, a, photos), ballot.path)
    with pytest.raises(ConfigError, match="begun with --seed 0"):
        open_ballot(folders, ballot.path, 1)
    picture(ballot.trials[0].a, 3)
    with pytest.raises(ConfigError, match="gone or changed"):
        open_ballot(folders, ballot.path)


@pytest.mark.parametrize(
    "text", ["", "x", "[]\n", '{"kind": "sstl-votes-1"}\n', '{"kind": "sstl-votes-1", "seed": 0}\n{}']
)
def test_a_file_of_something_else_is_kept(folders, tmp_path, text):
    (tmp_path / "v.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="not a file of votes"):
        open_ballot(folders, tmp_path / "v.jsonl")
    assert (tmp_path / "v.jsonl").read_text() == text


def test_a_vote_that_cannot_be_written_does_not_count(ballot, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sstl.report.blind.write_atomic", full)
    with pytest.raises(OSError, match="space"):
        ballot.vote(0, "left")
    assert ballot.position == 0


# The server


def test_a_whole_vote_over_http(server, ballot, tmp_path):
    page = ask(server, "/")
    assert (page.status, page.kind) == (200, "text/html")
    for number, choice in enumerate(("left", "right", "same")):
        state = ask(server, "/state").json
        assert (state["number"], state["count"], state["voted"]) == (number, 3, number)
        assert ask(server, "/result").status == 409
        trial = ballot.trials[number]
        for place in ("left", "right"):
            got = ask(server, f"/pictures/{number}/{place}")
            assert got.kind == "image/png"
            assert np.array_equal(pixels_of(got.body, tmp_path), np.asarray(Image.open(trial.picture(place))))
        assert (ask(server, f"/pictures/{number}/photo").status == 200) == bool(trial.photo) == state["photo"][number]
        done = ask(server, "/vote", {"number": number, "choice": choice})
        assert done.status == 200
        assert ask(server, "/vote", {"number": number, "choice": choice}).status == 409
    assert done.json["number"] is None
    result = ask(server, "/result").json
    assert result["preference"]["same"] == 1
    assert [photo["photo"] for photo in result["photos"]] == [trial.name for trial in ballot.trials]
    assert ask(server, "/undo", {"number": None}).json["number"] == 2
    assert ask(server, "/result").status == 409


def test_nothing_tells_which_is_which_before_the_end(server, folders):
    said = [
        ask(server, path) for path in ("/", "/state", "/result", "/nothing", "/pictures/0/left", "/pictures/9/left")
    ]
    for answer in said:
        told = answer.body + str(answer.headers).encode()
        for secret in (*map(str, folders), *NAMES):
            assert secret.encode() not in told
    assert b"tEXt" not in said[4].body
    assert ask(server, "/state").json.keys() == {"number", "count", "voted", "photo"}


@pytest.mark.parametrize(
    "path",
    [
        "/../a/coffee.png",
        "/pictures/../../a/coffee.png",
        "/pictures/0/left/../../../votes.jsonl",
        "/pictures/%2e%2e/left",
        "/pictures/0/left?x=1",
        "/pictures/-1/left",
        "/pictures/3/left",
        "/pictures/%D9%A0/left",
        "/pictures/0/a",
        "/votes.jsonl",
        "//etc/passwd",
        "/etc/passwd",
        "http://127.0.0.1/pictures/0/left",
    ],
)
def test_nothing_but_the_pictures_is_served(server, path):
    assert ask(server, path).status == 404


@pytest.mark.parametrize("host", ["example.org", "example.org:{port}", "127.0.0.1", "127.0.0.1:{port}.example.org", ""])
def test_another_host_name_is_refused(server, ballot, host):
    host = host.format(port=server.server_port)
    assert ask(server, "/state", Host=host).status == 403
    assert ask(server, "/vote", {"number": 0, "choice": "left"}, Host=host).status == 403
    assert ballot.votes == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.org"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://127.0.0.1"},
        {"Content_Type": "text/plain"},
        {"Content_Type": ""},
    ],
)
def test_another_page_cannot_vote(server, ballot, headers):
    assert ask(server, "/vote", {"number": 0, "choice": "left"}, **headers).status in (403, 415)
    assert ballot.votes == []
    assert ask(server, "/vote", {"number": 0, "choice": "left"}).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 190,
        b"\xff",
        {"number": 0},
        {"number": True, "choice": "left"},
        {"number": "0", "choice": "left"},
        {"number": 0, "choice": "a"},
        {"number": 0, "choice": ["left"]},
        {"number": 0, "choice": "left", "more": 1},
    ],
)
def test_a_body_that_is_no_vote_is_refused(server, ballot, body):
    assert ask(server, "/vote", body).status == 400
    assert ask(server, "/undo", {"number": 0, "choice": "left"}).status == 400
    assert ballot.votes == []


def test_a_large_body_is_refused_by_its_length(server, ballot):
    assert ask(server, "/vote", b" " * 201).status == 413
    assert ask(server, "/vote", b"{}", Content_Length="").status == 411
    assert ask(server, "/vote", b"{}", Content_Length="-1").status == 411
    assert ask(server, "/state", method="PUT").status == 501
    assert ballot.votes == []


def test_a_page_of_another_site_can_neither_frame_nor_embed_it(server):
    headers = ask(server, "/").headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


def test_a_port_in_use_is_one_line(ballot, server):
    with pytest.raises(SstlError, match="give another one by --port"):
        BlindServer(ballot, server.server_port)
    with pytest.raises(SstlError, match="give another one by --port"):
        BlindServer(ballot, 70000)
    assert server.server_address[0] == "127.0.0.1"


def test_a_picture_that_is_gone_is_told_without_its_folder(server, ballot, folders):
    ballot.trials[0].a.unlink()
    answers = [ask(server, f"/pictures/0/{place}") for place in ("left", "right")]
    assert sorted(answer.status for answer in answers) == [200, 500]
    assert all(str(folder).encode() not in answer.body for answer in answers for folder in folders)


def test_the_page_is_whole_and_loads_nothing_from_outside(server):
    html = ask(server, "/").body.decode()
    reader = Reader(html)
    assert "http:" not in html.replace("http-equiv", "")
    assert "https:" not in html
    assert len(reader.all("button")) == 7
    assert all(button["type"] == "button" for button in reader.all("button"))


@needs_chromium
def test_the_page_works_by_keyboard_and_on_a_phone(server, ballot, tmp_path):
    shown = "!busy && document.querySelectorAll('figure img').length"
    with Chromium(tmp_path / "profile", 360, 640) as browser:
        browser.open(server.address)
        browser.wait(f"typeof busy !== 'undefined' && {shown}")
        assert browser.value("document.documentElement.scrollWidth") == 360
        assert browser.value(
            "[...document.querySelectorAll('button')].every(b => b.getBoundingClientRect().bottom <= 640)"
        )
        assert browser.value("document.getElementById('scale').textContent") == "100 %"
        browser.press("z")
        assert browser.value("document.getElementById('scale').textContent") == "200 %"
        positions = browser.value("[...document.querySelectorAll('figure img')].map(i => i.style.cssText)")
        assert len(set(positions)) == 1
        for key, voted in {"ArrowLeft": 1, "2": 2, "u": 1, "ArrowRight": 2, "ArrowDown": 3}.items():
            browser.press(key)
            browser.wait(f"!busy && state.voted === {voted}")
        assert browser.value("document.getElementById('finished').hidden") is False
        assert [vote["choice"] for vote in ballot.votes] == ["left", "right", "same"]
        browser.value("document.getElementById('reveal').click()")
        browser.wait("!document.getElementById('result').hidden")
        assert "sign test p" in browser.value("document.body.innerText")


# The command


def test_the_report_prints_the_count(run_cli, folders, ballot, tmp_path):
    for number in range(2):
        ballot.vote(number, "left" if ballot.trials[number].left == "a" else "right")
    call = ("compare", "--blind", *folders[:2], "--votes", ballot.path, "--report", "--json", tmp_path / "count.json")
    done = run_cli(*call)
    assert done.code == 0
    assert "2 of 3 photos are voted on" in done.out
    assert f"2 A better ({folders[0]}): {ballot.trials[0].name}, {ballot.trials[1].name}" in done.out
    assert "100.0 % of the 2 decided, 95 % interval 34.2 to 100.0 % (Wilson); sign test p = 0.5" in done.out
    assert json.loads((tmp_path / "count.json").read_text())["preference"]["first"] == 2


def test_stopping_is_normal_and_does_not_tell_before_the_end(run_cli, folders, ballot, monkeypatch):
    def stop(server: BlindServer) -> None:
        number = server.ballot.position
        server.ballot.vote(number, "left")
        raise KeyboardInterrupt

    monkeypatch.setattr(BlindServer, "serve_forever", stop)
    for count in (1, 2, 3):
        done = run_cli("compare", "--blind", *folders[:2], "--votes", ballot.path, "--no-browser")
        assert done.code == 0
        assert "http://127.0.0.1:" in done.out
        assert ("A better" in done.out) == (count == 3)
        assert "sstl: error" not in done.err


def test_left_out_photos_are_listed_and_end_with_1(run_cli, folders, tmp_path):
    picture(folders[0] / "alone.png")
    done = run_cli("compare", "--blind", *folders[:2], "--votes", tmp_path / "v.jsonl", "--report")
    assert done.code == 1
    assert "alone.png has no partner" in done.err


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ([], "two or more runs"),
        (["r", "--blind", "a", "b"], "leave out the runs"),
        (["--blind", "a", "b", "-o", "x"], "writes no page"),
        (["r", "s"], "is no run"),
        (["r", "s", "-o", "x", "--port", "3"], "are of --blind"),
        (["r", "-o", "x"], "two or more runs, each once"),
        (["r", "r", "-o", "x"], "two or more runs, each once"),
        (["r", "s", "-o", "x"], "is no run"),
    ],
)
def test_wrong_usage_is_one_line(run_cli, tmp_path, monkeypatch, call, words):
    monkeypatch.chdir(tmp_path)
    done = run_cli("compare", *call)
    assert done.code == 2
    assert done.err.startswith("sstl: error: ")
    assert done.err.count("\n") == 1
    assert words in done.err


# Runs side by side


def make_run(
    folder: Path, network: Network | None, photos: Path | None = None, lr: float = 1e-3, psnr: float = 30
) -> Path:
    folder.mkdir(parents=True)
    tree = {
        "output": str(folder),
        "method": {"name": "mean_teacher", "options": {}},
        "network": {"name": "joint"},
        "optimizer": {"lr": lr, "betas": None},
        "data": {"unpaired": [{"path": str(photos)}] if photos else []},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    lines = [{"step": 10 * i, "loss": lr / i, "own": lr, "lr": lr, "seconds": 6.0 * i} for i in range(1, 5)]
    lines.append({"step": 40, "validation": {"psnr": psnr, "rain/psnr": psnr, "rain/input_psnr": 20}})
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if network is not None:
        save_weights(folder / "weights.safetensors", network)
        figures = {"removed": {"before": 1.0, "after": 2.0}, "clean_psnr": {"before": 50, "after": 49}}
        (folder / "figures.json").write_text(json.dumps({"outcome": {}, "figures": figures}))
    return folder


def make_evaluation(folder: Path, psnr: float, protocol: str = "rgb") -> Path:
    folder.mkdir()
    summary = {"interval": None, "count": 1}
    results = {"input": {"psnr": {"mean": 20.0, **summary}}, "w": {"psnr": {"mean": psnr, **summary}}}
    tree = {
        "data": {"data": "m.csv"},
        "weights": {"w": {}},
        "sets": {"s": {"protocol": protocol, "count": 1, "results": results}},
    }
    (folder / "scores.json").write_text(json.dumps(tree))
    return folder


def test_runs_are_drawn_side_by_side(run_cli: RunCli, folders, tmp_path, tiny_network):
    photos = folders[2]
    runs = [
        make_run(tmp_path / of / "run", tiny_network, photos, lr, p) for of, lr, p in (("x", 1e-3, 30), ("y", 2e-3, 31))
    ]
    page = tmp_path / "page.html"
    done = run_cli("compare", *runs, "-o", page)
    assert done.code == 0, done.err
    assert "differ in optimizer.lr. y/run validated best, at 31.00 dB (+1.00 dB over the next)." in done.out
    reader = Reader(page.read_text())
    for words in ("Settings that differ", "0.001", "0.002", "2.00", "x/run", "chelsea.jpg", "light removed"):
        assert words in reader.text
    assert "method.name" not in reader.text
    assert "1.00 → 2.00" in reader.text
    assert len(reader.all("img")) == 2 * 4 + 1  # two photos: each run's, the photo, the difference; the curves
    assert run_cli("compare", *runs, "-o", page).code == 2
    assert run_cli("compare", *runs, "-o", page, "--overwrite").code == 0


def test_evaluations_under_two_protocols_are_never_in_one_table(tmp_path):
    runs = [
        make_evaluation(tmp_path / name, *of)
        for name, of in {"p": (30, "rgb"), "q": (31, "rgb"), "r": (32, "y-matlab")}.items()
    ]
    tables = {table.title: table for table in runs_page(read_runs(runs)).tables}
    assert list(tables) == ["s: means over 1 images, protocol rgb", "s: means over 1 images, protocol y-matlab"]
    shared = tables["s: means over 1 images, protocol rgb"].rows
    assert [row[0] for row in shared] == ["p: input", "p: w", "q: w"]
    Reader(render(runs_page(read_runs(runs))))


def test_an_unfinished_run_and_one_without_a_log_are_compared(tmp_path, tiny_network, folders):
    runs = [make_run(tmp_path / "x", None), make_run(tmp_path / "y", tiny_network)]
    (runs[0] / "log.jsonl").unlink()
    page = runs_page(read_runs(runs))
    assert page.facts["x"].endswith("unfinished")
    assert (page.comparisons, page.figures) == ([], [])
    with pytest.raises(ConfigError, match="two or more runs with final weights"):
        runs_page(read_runs(runs), folders[2])


@pytest.mark.parametrize("file", ["figures.json", "config.yaml", "scores.json"])
def test_a_damaged_run_is_named(tmp_path, file):
    runs = [make_run(tmp_path / "x", None), make_run(tmp_path / "y", None)]
    if file == "scores.json":
        (runs[0] / "config.yaml").unlink()
    (runs[0] / file).write_text("[")
    with pytest.raises(ConfigError, match=file):
        read_runs(runs)


def test_settings_are_compared_key_by_key():
    tree = {"a": {"b": [{"c": 1}, {"c": None}], "d": [1, 2], "e": {}}, "f": True}
    assert flatten(tree) == {"a.b[0].c": 1, "a.b[1].c": None, "a.d": [1, 2], "a.e": {}, "f": True}
    runs = [SimpleNamespace(settings=flatten(one)) for one in (tree, {**tree, "f": "true", "g": 1})]
    assert differing(runs) == {"g": ["–", "1"]}


def test_curves_share_a_panel_only_where_two_runs_logged_the_term():
    log = [{"step": i, "loss": 1 / i, "lr": 1.0} for i in range(1, 9)]
    drawn = plots.compared_curves({"one": [{**line, "own": 1.0} for line in log], "two <&>": log, "empty": []})
    assert drawn is not None
    svg = drawn.decode()
    assert "total loss" in svg
    assert "two &lt;&amp;&gt;" in svg
    assert ">own<" not in svg
    assert plots.compared_curves({"one": [{"step": 1, "a": 1}], "two": [{"step": 1, "b": 1}]}) is None
