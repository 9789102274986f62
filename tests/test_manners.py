"""The command line's manners: what is said, how much of it, in which colour, and where; and what helps to type."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml
from PIL import Image

from sstl.cli.main import ALL, COMMANDS, build_parser, parse
from sstl.networks import save_weights
from sstl.networks.weights import DEFAULT


@pytest.fixture
def photos(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture
def weights(tmp_path, tiny_network):
    return save_weights(tmp_path / "tiny.safetensors", tiny_network)


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Return what ``sstl`` writes to a terminal, on stdout and stderr."""
    ours, theirs = pty.openpty()
    given = {**os.environ, "TERM": "xterm", **environment}
    if "NO_COLOR" not in environment:
        given.pop("NO_COLOR", None)
    with subprocess.Popen([sys.executable, "-m", "sstl", *arguments], stdout=theirs, stderr=theirs, env=given):
        os.close(theirs)
        written = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux tells the end of a terminal so
                part = b""
            if not part:
                break
            written += part
    os.close(ours)
    return written.decode()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_example_of_a_help_parses(command):
    parser = build_parser(ALL)
    (commands,) = (action for action in parser._actions if action.dest == "command")
    epilog = commands.choices[command].epilog
    calls = re.findall(r"^  sstl (.+)$", epilog, flags=re.MULTILINE)
    assert calls
    assert any(shlex.split(call)[0] == command for call in calls)
    for call in calls:
        parse(shlex.split(call.partition(" > ")[0]))


def test_alone_it_says_what_to_do_first(run_cli):
    out = run_cli().out
    first = out.partition("what to do first:")[2]
    assert [line.split()[1] for line in first.strip().splitlines()] == ["quickstart", "derain", "adapt", "COMMAND"]


def test_colours_only_on_a_terminal(run_process):
    coloured = on_a_terminal("weights", "show", "joint-smal")
    plain = run_process("-m", "sstl", "weights", "show", "joint-smal").err
    assert coloured.startswith("\033[1;31msstl: error:\033[0m ")
    assert re.sub(r"\033\[[\d;]*m", "", coloured).split() == plain.split()
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\033" not in on_a_terminal("weights", "show", "joint-smal", **environment)
    assert "\033[1mweights" in on_a_terminal("weights")


def test_progress_on_stderr_and_results_on_stdout(run_process, photos, weights):
    done = run_process("-m", "sstl", "derain", photos, "-o", "out", "--weights", weights)
    assert done.code == 0
    assert done.out.startswith("derained 2 of 2 photos, written to out\nnext: ")
    assert "derain:" in done.err


def test_quiet_leaves_results_and_errors(run_process, photos, weights):
    (photos / "c.png").write_text("no picture")
    done = run_process("-m", "sstl", "derain", photos, "-o", "out", "--weights", weights, "-q")
    assert done.code == 1
    assert done.out == "derained 2 of 3 photos, written to out\n"
    assert done.err.startswith("sstl: error: ")
    assert done.err.count("\n") == 1


def test_verbose_says_how_on_stderr(run_process, photos, weights):
    done = run_process("-m", "sstl", "derain", photos, "-o", "out", "--weights", weights, "-v")
    assert done.out.startswith("derained 2 of 2 photos, written to out\nnext: ")
    for text in (f"sstl: weights {weights} on cpu in torch.", "a.png: wrote out/a.png", "sstl: took "):
        assert text in done.err


def test_quiet_and_verbose_exclude_each_other(run_cli):
    assert "not allowed with argument" in run_cli("env", "-q", "-v").err
    assert os.environ.get("TQDM_DISABLE") is None


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (("derian", "x"), "Did you mean 'derain'?"),
        (("weights", "exprot"), "'exprot' is unknown. Did you mean 'export'?"),
        (("weights", "--jsno"), "Did you mean '--json'?"),
        (("derain", "x", "-o", "y", "--wieghts", "z"), "Did you mean '--weights'?"),
        (("derain", "x", "-o", "y", "--layers", "mask,straek"), "'straek' is no layer"),
        (("evaluate", "--protocol", "y-matlb"), "Did you mean 'y-matlab'?"),
        (("synthesize", "bundled", "-o", "x", "--recipe", "heavi"), "Did you mean 'heavy'?"),
        (("networks", "show", "jont"), "Did you mean 'joint'?"),
        (("data", "list", "rain100hh"), "Did you mean 'rain100h'?"),
        (("weights", "show", "joint-smal"), "Did you mean 'joint-small'?"),
        (("-q", "weights"), "unrecognized arguments: -q. Options stand behind the command."),
        (("derain", "x", "-o", "y", "--over"), "unrecognized arguments: --over."),
    ],
)
def test_mistyped_names_are_guessed(run_cli, arguments, suggestion):
    done = run_cli(*arguments)
    assert done.code == 2
    assert suggestion in done.err
    assert done.err.count("\n") == 1


def test_a_mistyped_method_is_guessed(run_cli, photos, tmp_path):
    assert (
        "Did you mean 'mean_teacher'?" in run_cli("adapt", photos, "-o", tmp_path / "r", "--method", "mean_teach").err
    )


def test_a_dry_run_of_derain_writes_nothing(run_cli, photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_text("")
    done = run_cli("derain", photos, "-o", out, "--dry-run", "--weights", "no-such-weights")
    assert done.code == 0
    assert f"{photos / 'a.png'} -> {out / 'a.png'}\n" in done.out
    assert f"{out / 'b.png'} (is there, would be kept)" in done.out
    assert "nothing was restored" in done.out
    assert [path.name for path in out.iterdir()] == ["b.png"]
    listed = tmp_path / "plan.json"
    done = run_cli("derain", photos, "-o", out, "--dry-run", "--layers", "background,mask", "--json", listed)
    assert f"{photos / 'b.png'} -> {out / 'b.mask.png'}\n" in done.out
    planned = json.loads(listed.read_text())["planned"]
    assert {"input": str(photos / "b.png"), "file": str(out / "b.mask.png"), "kept": False} in planned


def test_a_dry_run_of_synthesize_writes_nothing(run_cli, photos, tmp_path):
    done = run_cli(
        "synthesize",
        photos,
        "-o",
        tmp_path / "made",
        "--recipe",
        "heavy",
        "--count",
        1000,
        "--dry-run",
        "--json",
        tmp_path / "plan.json",
    )
    assert done.code == 0
    assert json.loads((tmp_path / "plan.json").read_text())["planned"] == 1000
    assert f"1000 pairs of 2 clean images, recipe heavy: 5000 PNG files in {tmp_path / 'made'}" in done.out
    assert not (tmp_path / "made").exists()


def test_a_dry_run_of_get_asks_no_network(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr("sstl.data.download.download", None)
    url = "https://example.org/set.zip"
    done = run_cli("data", "get", "--url", url, "-o", tmp_path / "d", "--dry-run")
    assert done.code == 0, done.err
    assert done.out == f"{url} -> {tmp_path / 'd' / 'set'}\nnothing was downloaded\n"
    assert "--dry-run belong to 'data get'" in run_cli("data", "list", "--dry-run").err


def test_bash_completes_commands_and_options(run_cli, tmp_path):
    pytest.importorskip("shtab", reason="not run: shtab is not installed")
    script = tmp_path / "sstl.bash"
    script.write_text(run_cli("completion", "bash").out)
    for typed, expected in {"der": "derain", "derain --we": "--weights", "weights ex": "export"}.items():
        words = ["sstl", *typed.split()]
        ask = (
            f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            f"_shtab_sstl sstl '{words[-1]}' ''; echo \"${{COMPREPLY[@]}}\""
        )
        done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=60)
        assert expected in done.stdout.split(), done.stderr
    assert "#compdef sstl" in run_cli("completion", "zsh").out


def test_completion_without_its_extra_says_so(run_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert "pip install shtab" in run_cli("completion", "bash").err


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    config = {"output": "run", "data": {"paired": [{"path": "bundled"}]}, "method": {"name": "supervised"}, "steps": 30}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [{"step": s, "loss": 1 / s, "seconds": s} for s in (10, 20)] + [{"step": 20, "validation": {"psnr": 30.25}}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_report_writes_the_page_of_a_training_and_again_when_it_went_on(run_cli, training):
    done = run_cli("report", training)
    page = training / "report.html"
    assert (done.code, done.out.splitlines()[0]) == (0, f"report   {page}")
    text = page.read_text()
    assert "Not finished: 20 of 30 steps. It validated best at step 20, at 30.25 dB" in text
    assert "method.name" in text
    page.write_text("seen")
    assert run_cli("report", training).code == 0
    assert page.read_text() == "seen"
    later = time.time() + 10
    os.utime(training / "log.jsonl", (later, later))
    run_cli("report", training)
    assert "Training run" in page.read_text()
    page.write_text("seen")
    run_cli("report", training, "--rebuild")
    assert "Training run" in page.read_text()


def test_report_opens_the_page_on_a_terminal_with_a_screen(run_cli, training, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    run_cli("report", training)
    assert opened == []  # stdout is no terminal
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    run_cli("report", training, "--no-browser")
    assert opened == []
    run_cli("report", training)
    assert opened == [(training / "report.html").resolve().as_uri()]


def test_report_of_something_else_says_what_is_wanted(run_cli, tmp_path, training):
    assert "is no run" in run_cli("report", tmp_path).err
    (training / "log.jsonl").write_text("")
    assert "has logged nothing yet" in run_cli("report", training).err


def test_the_page_of_an_evaluation_is_shown_as_it_is(run_cli, tmp_path):
    found = {"protocol": "rgb", "count": 1, "results": {}}
    (tmp_path / "scores.json").write_text(json.dumps({"data": {}, "weights": {}, "sets": {"s": found}}))
    assert "give the same command again" in run_cli("report", tmp_path).err
    (tmp_path / "report.html").write_text("seen")
    assert run_cli("report", tmp_path).out.startswith(f"report   {tmp_path / 'report.html'}\n")


@pytest.mark.parametrize("command", ["derain", "adapt", "evaluate"])
def test_the_help_names_the_default_weights(run_cli, command):
    assert f"(default:{DEFAULT})" in "".join(run_cli(command, "--help").out.split())
