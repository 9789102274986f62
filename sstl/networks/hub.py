"""Weights as folders, on this disk or on the Hugging Face hub: safetensors, config.json and a model card."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sstl.errors import WeightsError
from sstl.networks.base import Network
from sstl.networks.card import model_card
from sstl.networks.weights import FORMAT, HUB, HUB_FILE, load_weights, save_weights
from sstl.ops.files import write_atomic

CONFIG, CARD = "config.json", "README.md"


def save_pretrained(
    network: Network,
    folder: str | Path,
    info: Mapping[str, Any] | None = None,
    title: str | None = None,
    licence: str | None = None,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and a model card, ``README.md``, into a folder; return the folder.

    Args:
        network: in float32.
        folder: made if it is not there.
        info: what the card tells (see ``sstl.networks.card``; ``sstl.report.about.about_weights`` collects it from a
            run); by default that of the weights which ``from_pretrained`` loaded, unless they have changed since.
        title: of the card; by default the folder's name.
        licence: an identifier that the hub knows.
    """
    folder = Path(folder)
    info = dict(_notes(network) if info is None else info)
    save_weights(folder / HUB_FILE, network, info)
    config = {"library_name": "sstl", "format": FORMAT, "network": network.name, "config": network.config, "info": info}
    write_atomic(folder / CONFIG, json.dumps(config, indent=1) + "\n")
    card = model_card(title or folder.resolve().name, network.name, network.config, info, licence)
    write_atomic(folder / CARD, card)
    return folder


def from_pretrained(name: str | Path, **options: Any) -> Network:
    """Load a network: from a folder, from a weights file, shipped weights by name, or ``ORG/NAME`` from the hub.

    What is on this disk goes before the hub. The tensors must be exactly those of the network.

    Args:
        name: what to load; ``hub:ORG/NAME`` is always the hub's.
        options: of ``download``.

    Raises:
        WeightsError: there is no such folder, file, name or repository, it cannot be reached and is not in the cache,
            or it does not hold weights of sstl.
    """
    text = str(name)
    if not text.startswith(HUB) and re.fullmatch(r"[\w.-]+/[\w.-]+", text) and not Path(text).exists():
        text = HUB + text
    weights = load_weights(download(text, **options) if text.startswith(HUB) else name)
    _check_config(weights.path, weights.network)
    weights.network.loaded = (_fingerprint(weights.network), weights.info)
    return weights.network


def push_to_hub(
    network: Network,
    repo: str,
    info: Mapping[str, Any] | None = None,
    licence: str | None = None,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    message: str = "Upload weights of sstl",
) -> str:
    """Upload what ``save_pretrained`` writes to ``ORG/NAME``, which is made if it is not there; return the address.

    Args:
        network, info, licence: of ``save_pretrained``.
        repo: ``ORG/NAME``.
        private: whether a new repository is; by default as the organisation has it.
        token: by default the one that ``hf auth login`` has stored.
        revision: the branch.
        message: of the commit.

    Raises:
        WeightsError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    repo = repo.removeprefix(HUB)
    api = HfApi(token=token, library_name="sstl")
    with tempfile.TemporaryDirectory() as place:
        folder = save_pretrained(network, Path(place), info, repo.rpartition("/")[2], licence)
        try:
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, revision=revision, commit_message=message)
        except Exception as error:  # of the library, and of the transport below it
            raise WeightsError(f"{HUB}{repo}: not uploaded: {_reason(error)}") from None
    return str(address)


def download(
    repo: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> Path:
    """Return the folder, in the cache of ``huggingface_hub``, of the weights and the configuration of ``hub:ORG/NAME``.

    Args:
        repo: with or without ``hub:``.
        revision: a branch, a tag or a commit.
        cache_dir: instead of the usual one.
        local_files_only: only look into the cache (so does the environment's ``HF_HUB_OFFLINE=1``).
        token: for a private repository.

    Raises:
        WeightsError: it is not in the cache and cannot be downloaded, or holds no weights of sstl.
    """
    from huggingface_hub import errors, snapshot_download

    repo = repo.removeprefix(HUB)
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=[HUB_FILE, CONFIG, CARD],
            library_name="sstl",
        )
    except errors.LocalEntryNotFoundError:
        why = "the cache holds no copy, and the hub cannot be reached or was not to be asked"
        raise WeightsError(f"{HUB}{repo}: {why}; go online once, or give a folder.") from None
    except Exception as error:  # of the library, and of the transport below it
        raise WeightsError(f"{HUB}{repo}: not downloaded: {_reason(error)}") from None
    missing = [name for name in (HUB_FILE, CONFIG) if not Path(folder, name).is_file()]
    if missing:
        raise WeightsError(
            f"{HUB}{repo}: holds no {missing[0]}; it is no repository of sstl weights, or a partial copy."
        )
    return Path(folder)


def _reason(error: Exception) -> str:
    from huggingface_hub import errors

    known = (
        (errors.GatedRepoError, "its owner must grant you access, on its page"),
        (errors.RevisionNotFoundError, "there is no such revision"),
        (errors.RepositoryNotFoundError, "no such repository, or a private one; check the name, and 'hf auth login'"),
        (errors.HFValidationError, "the name must be ORG/NAME"),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set; unset it"),
    )  # fmt: skip
    return next((text for kind, text in known if isinstance(error, kind)), " ".join(str(error).split())[:200]) + "."


def _check_config(path: Path, network: Network) -> None:
    """Refuse a folder whose config.json and weights tell of two networks."""
    config = path.parent / CONFIG
    if path.name != HUB_FILE or not config.is_file():
        return
    try:
        told = json.loads(config.read_text(encoding="utf-8"))
        same = (told["network"], told["config"]) == (network.name, network.config)
    except (ValueError, LookupError, TypeError):
        raise WeightsError(f"{config}: damaged, or not of sstl; save the weights again.") from None
    if not same:
        raise WeightsError(f"{config}: tells of another network than {path.name}; save the weights again.")


def _notes(network: Network) -> dict[str, Any]:
    """Return what is known of the weights; of changed ones only what they started from."""
    if network.loaded is None:
        return {}
    fingerprint, info = network.loaded
    return info if fingerprint == _fingerprint(network) else {"started from": info}


def _fingerprint(network: Network) -> str:
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
