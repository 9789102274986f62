"""Files from strangers: none runs code, leaves its folder, or stops the good files beside it."""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Outcome
from PIL import Image
from safetensors.torch import save_file
from skimage import data

from sstl.config import load_config, read_tree
from sstl.data import SourceConfig, open_images
from sstl.data.manifest import read_manifest
from sstl.data.survey import survey
from sstl.data.tables import open_splits
from sstl.data.unpack import unpack
from sstl.engine import TrainConfig
from sstl.errors import ConfigError, InputError, SstlError, WeightsError
from sstl.networks import load_weights
from sstl.networks.released import import_weights
from sstl.networks.weights import FORMAT
from sstl.ops.memory import peak_memory
from sstl.report import adaptation

sys.path.insert(0, str(ROOT / "experiments" / "reliability"))

from corpus import corpus
from fuzz import READERS, fuzz
from hostile import Ended, Trial

RunCli = Callable[..., Outcome]
PHOTO = np.ascontiguousarray(data.astronaut()[:24, 200:240])


class Exploit:
    """Pickled, it makes the folder "evil" when it is opened."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("evil",)


@pytest.fixture(autouse=True)
def _nothing_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not [path for path in tmp_path.rglob("*") if path.name == "evil"]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PHOTO).save(buffer, "PNG")
    return buffer.getvalue()


# --- a corpus of broken files --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """Two hundred files, those that take long left out; as root, whom no permissions hold, those left out too."""
    heavy = ("100000x1", "1x100000", "16000x1", "1x16000", "text bomb")
    items = [item for item in corpus(0, copies=1) if item.kind not in heavy]
    if os.geteuid() == 0:
        items = [item for item in items if "unreadable" not in item.kind]
    return Trial(tmp_path_factory.mktemp("corpus"), items, lambda *_: Ended(2, "", ""), steps=1)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def small(**settings: object) -> TrainConfig:
        crops = adaptation.replace(settings["data"], crop=32)  # type: ignore[attr-defined]
        return TrainConfig(**{**settings, "batch_size": 2, "data": crops})  # type: ignore[arg-type]

    monkeypatch.setattr(adaptation, "TrainConfig", small)
    monkeypatch.setattr(adaptation, "load_config", lambda _, path: load_config(TrainConfig, path))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("step", ["derain", "show", "evaluate", "adapt"])
@pytest.mark.usefixtures("small_steps")
def test_commands_go_through_all_of_it(trial: Trial, run_cli: RunCli, step: str) -> None:
    def run(*arguments: object) -> Ended:
        found = run_cli(*arguments)
        return Ended(found.code, found.out, found.err)

    trial.run = run
    assert len(trial.items) > 200
    assert getattr(trial, step)() == []


def test_a_name_that_is_no_text_is_told_and_written(run_cli: RunCli, tmp_path: Path, trial: Trial) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / os.fsdecode(b"\xff\nmoved.gif")).write_bytes(png())
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"broken")
    done = run_cli("derain", folder, "-o", tmp_path / "out", "--weights", trial.weights)
    assert done.code == 1
    assert next(line for line in done.err.split("\n") if "error: " in line).endswith("convert it to JPEG or PNG.")
    assert (tmp_path / "out" / os.fsdecode(b"\xff\nmoved.png")).is_file()


def test_a_name_too_long_for_its_results_stops_no_other(run_cli: RunCli, tmp_path: Path, trial: Trial) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a" * 250 + ".png", "b.png"):
        (folder / name).write_bytes(png())
    command = ("derain", folder, "-o", tmp_path / "out", "--weights", trial.weights, "--layers", "background,mask")
    done = run_cli(*command)
    assert done.code == 1
    assert "its result cannot be written (File name too long); rename it" in done.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"b.png", "b.mask.png"}


def test_a_folder_that_cannot_be_listed_stops_no_other(
    run_cli: RunCli, tmp_path: Path, trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open", "closed"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "a.png").write_bytes(png())
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    done = run_cli("derain", tmp_path / "photos", "-o", tmp_path / "out", "--weights", trial.weights)
    assert done.code == 1
    assert "closed: cannot be listed (Permission denied)" in done.err
    assert (tmp_path / "out/open/a.png").is_file()
    with pytest.warns(UserWarning, match="left out: .*closed: cannot be listed"):
        assert len(open_images(SourceConfig("photos"), "rainy", tmp_path)) == 1


def test_long_texts_and_pipes_beside_photos_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "log.txt").write_bytes(b"a.png " * 3_000_000)
    os.mkfifo(tmp_path / "pipe.txt")
    os.mkfifo(tmp_path / "metadata.csv")
    assert [part.counts for part in survey(tmp_path)] == [{"images": 1}]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", READERS)
def test_readers_refuse_in_one_line_what_they_cannot_read(name: str) -> None:
    assert fuzz(name, 30, 0, Counter()) is None


# --- no code from data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "pth", "pt", "npz"])
def test_a_pickle_is_not_run(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights.{suffix}"
    if suffix == "npz":
        np.savez(path, a=np.array([Exploit()], dtype=object))
    else:
        torch.save({"a": Exploit()}, path)
    with pytest.raises(WeightsError, match="sstl opens no pickles"):
        load_weights(path)
    with pytest.raises(WeightsError, match="damaged, or more than tensors"):
        import_weights(path, "ddn")


@pytest.mark.parametrize(
    "config", ['{"stages": 1000000000000}', '{"rates": [1, 2, 1' + "0" * 40 + "]}", '{"size": "base", "stages": 4096}']
)
def test_weights_of_an_absurd_network_are_refused_before_it_is_built(tmp_path: Path, config: str) -> None:
    notes = {"format": FORMAT, "network": "joint", "config": config, "info": "{}"}
    save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", notes)
    with peak_memory() as peak, pytest.raises(WeightsError, match=r"cannot be built|its tensors are not those"):
        load_weights(tmp_path / "w.safetensors")
    assert peak.bytes is None or peak.bytes < 1e8


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [evil]",
        "!!python/object/new:os.mkdir [evil]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!include /etc/passwd",
    ],
)
def test_tags_of_yaml_make_nothing(tmp_path: Path, run_cli: RunCli, value: str) -> None:
    (tmp_path / "c.yaml").write_text(f"output: {value}\n")
    with pytest.raises(ConfigError, match="not valid YAML: could not determine a constructor"):
        read_tree(tmp_path / "c.yaml")
    for arguments in (("train", "c.yaml"), ("train", "c.yaml", f"seed={value}")):
        done = run_cli(*arguments)
        assert done.code == 2
        assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "path",
    ["../a.png", "/etc/passwd", "b/../../a.png", "..\\a.png", "C:\\a.png", "C:a.png", "\\\\server\\a.png", "~/../../a"],
)
def test_a_manifest_does_not_leave_its_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "m.csv").write_text(f"kind,key,rainy\nreal,a-1,{path}\n")
    with pytest.raises(ConfigError, match=r"line 2: 'rainy' is "):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil-of-sstl", "a/../../evil", "..\\evil", "C:\\evil"])
def test_an_archive_does_not_leave_its_folder(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(name, "evil")
    with pytest.raises(InputError, match="which leaves its folder"):
        unpack(tmp_path / "a.zip", tmp_path / "sub" / "a")
    assert [*(tmp_path / "sub").iterdir()] == []


SCRIPT = "import os\nos.mkdir('evil')\n"


@pytest.fixture
def hf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    return datasets


@pytest.mark.usefixtures("hf")
def test_a_script_of_a_data_set_on_the_hub_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets.load

    (tmp_path / "repository").mkdir()

    def download(_: object, repo_id: str, filename: str, **__: object) -> str:
        assert repo_id == "org/set"
        path = tmp_path / "repository" / filename
        path.write_text(SCRIPT if filename == "set.py" else "")
        return str(path)

    monkeypatch.setattr(datasets.load.HfApi, "hf_hub_download", download)
    monkeypatch.setattr(datasets.load, "_raise_if_offline_mode_is_enabled", lambda: None)
    monkeypatch.setenv("HF_DATASETS_TRUST_REMOTE_CODE", "1")
    with pytest.raises(ConfigError, match=r"hub:org/set cannot be opened .*scripts are no longer supported"):
        open_splits("hub:org/set")
    assert (tmp_path / "repository" / "set.py").is_file()


@pytest.mark.usefixtures("hf")
def test_a_script_beside_a_table_is_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "org" / "set"
    folder.mkdir(parents=True)
    (folder / "set.py").write_text(SCRIPT)
    (folder / "a.png").write_bytes(png())
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png"}) + "\n")
    with pytest.raises(ConfigError, match="scripts are no longer supported"):
        open_splits("hub:org/set")
    assert len(open_images(SourceConfig("org/set"), "rainy", tmp_path)) == 1


def test_cells_of_a_table_name_no_file_outside_of_it(hf, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    folder = tmp_path / "set"
    (folder / "sub").mkdir(parents=True)
    (folder / "own.png").write_bytes(png())
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    paths = [tmp_path / "secret.png", folder / "../secret.png", folder / "link.png", folder / "own.png"]
    table = hf.Dataset.from_dict({"photo": [{"bytes": None, "path": str(path)} for path in paths]})
    table.cast_column("photo", hf.Image()).data.table  # noqa: B018  only the paths are stored
    import pyarrow.parquet

    pyarrow.parquet.write_table(table.cast_column("photo", hf.Image()).data.table, folder / "t.parquet")
    images = open_images(SourceConfig(str(folder / "t.parquet")), "rainy")
    for i in range(3):
        with pytest.raises(InputError, match="is not a file of the table; leave the row out"):
            images.load(i)
    np.testing.assert_array_equal(images.load(3), PHOTO)


@pytest.mark.usefixtures("hf")
@pytest.mark.parametrize("name", ["../secret.png", "{outside}"])
def test_metadata_of_a_folder_name_no_file_outside_of_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(png())
    name = name.format(outside=tmp_path / "secret.png")
    (tmp_path / "set" / "metadata.jsonl").write_text(json.dumps({"file_name": name}) + "\n")
    with pytest.raises(SstlError):
        open_images(SourceConfig("set"), "rainy", tmp_path).load(0)


def test_images_in_a_table_are_held_to_the_same_formats_and_sizes(hf, tmp_path: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(evil) (w) file closefile\n"
    bomb = next(item.content for item in corpus(0, copies=0) if item.kind == "absurd dimensions")
    table = hf.Dataset.from_dict({"photo": [{"bytes": content, "path": None} for content in (eps, bomb, png())]})
    table.cast_column("photo", hf.Image()).to_parquet(tmp_path / "t.parquet")
    images = open_images(SourceConfig("t.parquet"), "rainy", tmp_path)
    with pytest.raises(InputError, match="row 0 column 'photo': not an image that can be read"):
        images.load(0)
    with pytest.raises(InputError, match=r"row 1 column 'photo': 20000 x 20000 is 400.0 megapixels, more than"):
        images.load(1)
    np.testing.assert_array_equal(images.load(2), PHOTO)
