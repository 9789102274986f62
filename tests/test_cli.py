"""The command line's contract: exit codes, one-line errors, --json, and the listing commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sstl
from sstl.cli.main import COMMANDS
from sstl.config import from_tree
from sstl.engine import Interrupted, TrainConfig
from sstl.networks import create_network, list_networks, save_weights, weights
from sstl.report import inspection


@pytest.fixture
def shipped(tmp_path, monkeypatch, tiny_network):
    """A weights folder of the package with one file and its card."""
    folder = tmp_path / "weights"
    path = save_weights(folder / "joint-tiny.safetensors", tiny_network, {"steps": 3})
    path.with_suffix(".md").write_text("# joint-tiny\n\nMade in a test.\n")
    monkeypatch.setattr(weights, "SHIPPED", folder)
    return path


def assert_error(outcome, *words: str) -> None:
    """Check for exit code 2 with one line on stderr that holds the words, and nothing on stdout."""
    assert outcome.code == 2
    assert outcome.out == ""
    assert outcome.err.startswith("sstl: error: ")
    assert outcome.err.count("\n") == 1
    for word in words:
        assert word in outcome.err


def test_alone_it_says_where_to_start(run_cli):
    outcome = run_cli()
    assert outcome.code == 0
    assert "sstl quickstart" in outcome.out
    assert all(command in outcome.out for command in COMMANDS)
    assert outcome.err == ""


def test_version(run_cli):
    assert run_cli("--version").out == f"sstl {sstl.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(run_cli, command):
    outcome = run_cli(command, "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"usage: sstl {command} ")
    assert "example" in outcome.out
    assert f"sstl {command}" in outcome.out.partition("example")[2]


def test_an_unknown_command_suggests(run_cli):
    assert_error(run_cli("derian", "photo.jpg"), "unknown command 'derian'. Did you mean 'derain'?")


@pytest.mark.parametrize(
    "arguments", [["networks", "--bogus"], ["networks", "shwo", "joint"], ["networks", "a", "b", "c"]]
)
def test_wrong_usage_points_to_the_help(run_cli, arguments):
    assert_error(run_cli(*arguments), "see 'sstl networks --help'")


def test_a_traceback_only_with_debug(run_process):
    quiet, loud = (run_process("-m", "sstl", "networks", "show", "jont", *debug) for debug in ([], ["--debug"]))
    assert_error(quiet, "unknown network 'jont'. Did you mean 'joint'?")
    assert "Traceback" in loud.err
    assert loud.err.endswith(quiet.err)
    assert loud.code == 2


def test_a_closed_pipe_is_no_error():
    with subprocess.Popen(
        [sys.executable, "-m", "sstl", "networks"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_a_closed_pipe_does_not_make_a_failure_a_success():
    failing = (
        "import sys, sstl.cli.networks as one; from sstl.cli.main import main\n"
        "one.run = lambda _: print('some failed') or 1\n"
        "sys.stdin.read(); sys.exit(main(['networks']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", failing], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
    ) as process:  # fmt: skip
        process.stdout.close()
        assert process.communicate()[1] == b""
    assert process.returncode == 1


def test_networks(run_cli, tmp_path):
    figures = tmp_path / "networks.json"
    outcome = run_cli("networks", "--json", figures)
    assert outcome.code == 0
    assert outcome.out.endswith(f"wrote {figures}\n")
    assert outcome.out.partition("next:")[0] == run_cli("networks", "list").out.partition("next:")[0]
    rows = json.loads(figures.read_text())["networks"]
    assert {row["name"] for row in rows} == set(list_networks())
    for row in rows:
        assert f"{row['parameters']:,}" in outcome.out
        network = create_network(row["name"], **({"size": row["size"]} if row["size"] else {}))
        assert row["parameters"] == sum(p.numel() for p in network.parameters())


def test_networks_list_takes_a_pattern(run_cli):
    assert "joint" in run_cli("networks", "list", "j*").out
    assert_error(run_cli("networks", "list", "x*y"), "no network matches 'x*y'")


def test_networks_show(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "SUPPORT_BUDGET", 1e9)
    monkeypatch.setattr(inspection, "GRADIENT_BUDGET", 1e9)
    outcome = run_cli("networks", "show", "joint", "--size", 24, 40, "--json", tmp_path / "joint.json")
    assert outcome.code == 0
    shown = json.loads((tmp_path / "joint.json").read_text())
    assert shown["arguments"].items() >= {"size": "small", "stages": 1, "rates": [1, 2, 5]}.items()
    assert [row["size"] for row in shown["sizes"]] == ["tiny", "small", "base"]
    assert shown["stride"] == 8
    for row in shown["sizes"]:
        assert f"{row['parameters']:,}" in outcome.out
        assert f"{row['multiply_adds'] / 1e9:.1f} G" in outcome.out
        assert row["receptive_radius"] == create_network("joint", size=row["size"]).receptive_radius
        assert f"{row['receptive_field']} x {row['receptive_field']}" in outcome.out
        assert f"size={row['size']}: holes were looked for in the {row['probe']} x {row['probe']} pixels" in outcome.out
        assert row["holes"] == 0
        assert 1 < row["effective_field"] < row["receptive_field"] == 2 * row["receptive_radius"] + 1


def test_multiply_adds_are_those_of_the_convolutions(run_cli, tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "SUPPORT_BUDGET", 1e9)
    monkeypatch.setattr(inspection, "GRADIENT_BUDGET", 1e9)
    run_cli("networks", "show", "joint", "size=tiny", "--json", tmp_path / "joint.json")
    shown = json.loads((tmp_path / "joint.json").read_text())
    height, width = (-(-side // 8) * 8 for side in (321, 481))  # the network pads to its stride
    network = create_network("joint", size="tiny")
    cells = {"context": 64, "down_eighth": 64, "up_quarter": 64}
    cells |= {"encode_quarter": 16, "down_quarter": 16, "decode_quarter": 16, "up_half": 16}
    expected = sum(
        parameter.numel() * height * width // cells.get(name.split(".")[0], 4)
        for name, parameter in network.named_parameters()
        if parameter.ndim == 4
    )
    assert shown["sizes"][0]["multiply_adds"] == expected


def test_networks_show_wants_a_known_name(run_cli):
    assert_error(run_cli("networks", "show", "jont"), "unknown network 'jont'. Did you mean 'joint'?")
    assert_error(run_cli("networks", "show"), "needs a NAME")


def test_methods(run_cli, tmp_path):
    outcome = run_cli("methods", "--json", tmp_path / "methods.json")
    assert outcome.code == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "methods.json").read_text())["methods"]}
    assert rows.keys() >= {"supervised", "sirr", "mean_teacher"}
    for name, row in rows.items():
        assert f"{name}: {row['summary']}" in outcome.out
        assert row["summary"].endswith(".")
    known = {"streak": 0.1, "mask": 0.01, "early_stages": 0.5, "balance": 0.01, "distance": "l1", "edge": 0.0}
    assert rows["supervised"]["options"] == {**known, "intensity": False}
    assert rows["sirr"]["options"].keys() > rows["supervised"]["options"].keys()  # passed on to its base


def test_weights_list(run_cli, tmp_path, shipped):
    outcome = run_cli("weights", "--json", tmp_path / "weights.json")
    assert outcome.code == 0
    assert "joint-tiny" in outcome.out
    listed = json.loads((tmp_path / "weights.json").read_text())
    assert [row["path"] for row in listed["weights"]] == [str(shipped)]
    assert listed["default"] == weights.DEFAULT


def test_weights_show(run_cli, tmp_path, shipped):
    by_name, by_path = run_cli("weights", "show", "joint-tiny"), run_cli("weights", "show", shipped)
    assert by_name.out == by_path.out
    assert "network joint size=tiny" in by_name.out
    assert "steps: 3" in by_name.out
    assert "Made in a test." in by_name.out
    run_cli("weights", "show", "joint-tiny", "--json", tmp_path / "shown.json")
    shown = json.loads((tmp_path / "shown.json").read_text())
    assert (shown["config"], shown["info"], shown["card"]) == (
        {"size": "tiny"},
        {"steps": 3},
        "# joint-tiny\n\nMade in a test.\n",
    )


def test_weights_without_a_card(run_cli, shipped):
    shipped.with_suffix(".md").unlink()
    assert run_cli("weights", "show", "joint-tiny").code == 0


@pytest.mark.usefixtures("shipped")
def test_weights_errors(run_cli, tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    assert_error(run_cli("weights", "show", text), str(text), "not a safetensors file")
    assert_error(run_cli("weights", "show", "joint-tyni"), "Did you mean 'joint-tiny'?")
    assert_error(run_cli("weights", "show"), "'weights show' needs a NAME or PATH")
    assert_error(run_cli("weights", "list", "joint-tiny"), "'weights list' takes no name")


def test_env(run_cli, tmp_path):
    outcome = run_cli("env", "--json", tmp_path / "env.json")
    assert outcome.code == 0
    facts = json.loads((tmp_path / "env.json").read_text())
    assert facts["sstl"] == sstl.__version__
    assert {"commit", "torch", "threads", "precision", "device", "seed", "date"} <= facts.keys()
    assert all(str(value) in outcome.out for value in facts.values())


def test_a_json_file_that_cannot_be_written_is_named(run_cli, tmp_path):
    (tmp_path / "file").write_text("")
    outcome = run_cli("methods", "--json", tmp_path / "file" / "methods.json")
    assert outcome.code == 2
    assert outcome.err.startswith(f"sstl: error: {tmp_path / 'file'}")
    assert outcome.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("adapt x -o y --steps 0", "'0' is not a whole number from 1 up"),
        ("adapt x -o y --seed -1", "'-1' is not a whole number from 0 to 4294967295"),
        ("adapt x -o y --minutes nan", "'nan' is not a number above 0"),
        ("quickstart --seed 4294967296", "'4294967296' is not a whole number from 0 to 4294967295"),
        ("synthesize bundled -o y --recipe light --seed 1e3", "'1e3' is not a whole number"),
        ("derain x -o y --seed 99999999999", "from 0 to 4294967295"),
        ("demo --port 70000", "'70000' is not a whole number from 0 to 65535"),
        ("networks show joint widths=[24]", "network 'joint': "),
        ("networks show joint blocks=[1]", "network 'joint': "),
        ("data get --url http://[x/f.zip -o y", "'http://[x/f.zip' is no address"),
    ],
)
def test_values_that_cannot_be_are_named(run_cli, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert_error(run_cli(*arguments.split()), message)


def test_home_is_found_in_a_training_file():
    config = from_tree(TrainConfig, {"output": "~/run", "data": {"paired": [{"path": "bundled"}], "root": "~/data"}})
    assert config.output == Path.home() / "run"
    assert config.data.root == Path.home() / "data"


@pytest.mark.parametrize(
    ("command", "goes_on"),
    [
        ("train c.yaml --overwrite", "sstl train c.yaml --resume"),
        ("quickstart --seed 3", "sstl quickstart --seed 3 --overwrite"),
    ],
)
def test_what_was_interrupted_says_how_it_goes_on(run_cli, monkeypatch, command, goes_on):
    def run(_):
        raise Interrupted("stopped at step 1; saved.", 15, resumable=True)

    monkeypatch.setattr(f"sstl.cli.{command.split()[0]}.run", run)
    done = run_cli(*command.split())
    assert (done.code, done.err) == (143, f"sstl: error: stopped at step 1; saved. Go on with: {goes_on}\n")
