"""The gate of an adaptation: judges it every so many steps without truth, and keeps the best harmless network."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sstl.data.stream import PairedStream, UnpairedStream
from sstl.engine.config import TrainConfig
from sstl.methods.trust import Harm, Judgement, Trust, make_exam, rain_seen
from sstl.networks import Network, load_weights, save_weights
from sstl.networks.routed import Routed, latest, looks, reliability
from sstl.ops.precision import resolve_precision
from sstl.rain import load_recipe, streaks_alone
from sstl.types import PairedBatch

SEED = 7_919  # the gate's crops are not those of the first training steps
_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.25)  # of the way from the start, tried from the whole way down
KNOWN_CROPS = 8  # of each part of ``known``: differences on one crop are far smaller than between crops
ROUTED_PHOTOS, ROUTED_PAIRS = 192, 288  # crops that a router learns from: of the photos, and of other pairs
SPARING = 0.75  # of the photos that are recognised must be left for the rehearsed rain to be spared, too
EXCESS = 1.25  # times as much rain as there is may be found: both are estimates
KEPT = "kept.safetensors"


class Gate:
    """Judges the averaged weights of a run; what it says stands in the run's log under ``trust``.

    A network is *admissible* if it forgets no more than ``config.gate.forgetting`` of any rain that it knew and leaves
    clean photographs as they are; one that is not is taken back towards the start (weights are interpolated, WiSE-FT,
    CVPR 2022) until it is. The admissible network of the largest predicted gain is kept in ``kept.safetensors``. It is
    *accepted* at the end if that gain exceeds the error of the prediction.

    The gain is predicted on rain that was seen in the photos (``Exam.found``), and on streaks that were matched to them
    without a network (``config.gate.matched``): a network removes best what it sees itself, so rain that the start
    alone sees favours the start, and one that is blind to the photos' rain looks as good as another. A network that
    takes texture for rain does harm to clean photographs and is not admissible.

    With ``config.gate.others`` two networks are kept: the adapted one for images that look like the photos, and the
    start for the rest (``Routed``). Harm is measured of the two together, so that what the start goes on to restore
    does not hold the other back. None of the clear photographs that are judged on is taken for a photo, nor is the
    rehearsed rain, if that costs few photos (``SPARING``). Of a gain counts the share of the photos that is recognised.

    Nor is a network admissible that finds much more rain in the photos than there is (``config.gate.light``): it takes
    other thin bright things for rain.

    Args:
        config: the run; its start is what ``config.network.weights`` names.
        network: the start; not changed. What is judged is what is trained of it, see ``latest``.

    Attributes:
        routing: share of the photos, and of the others, that a router takes for photos which did not learn from them;
            None if there is no router to learn.
    """

    def __init__(self, config: TrainConfig, network: Network, device: torch.device) -> None:
        assert config.gate is not None
        self.config, self.gate, self.device = config, config.gate, device
        self.dtype = resolve_precision(config.precision, device)
        # Whatever may be wrong with a recipe is told before anything is learned.
        matched = None if self.gate.matched is None else streaks_alone(load_recipe(self.gate.matched))
        self.start = copy.deepcopy(network).to(device)
        data, count, side = config.data, self.gate.crops, self.gate.side
        stream = UnpairedStream(data.unpaired, side, config.seed + SEED, data.root, 0)
        self.photos = stream[range(count)].rainy.to(device)
        self.rehearsed = _rehearsed(config).to(device)
        self.known = [
            PairedStream((part,), side, config.seed + SEED, data.root, 0)[range(KNOWN_CROPS)].to(device)
            for part in self.gate.known
        ]
        self.shipped = copy.deepcopy(self.start) if isinstance(self.start, Routed) else None
        self.routing: dict[str, float] | None = None
        if self.gate.others:
            self.shipped = Routed(self.start).to(device)
            self.routing = learn_routes(config, self.shipped)
        finder = self.start if self.gate.finder is None else load_weights(self.gate.finder).network.to(device)
        with self.arithmetic():
            seen = rain_seen(finder, self.photos)
            exam = make_exam(self.photos, seen, self.rehearsed, config.seed + SEED, self.known, matched)
            self.trust = Trust(self.start, exam)
        light = self.gate.light
        self.most = math.inf if light is None else EXCESS * max(light, float(seen.mean()))
        self.best: dict[str, Any] | None = None
        self.waited = 0

    def recall(self, log: list[dict[str, Any]]) -> None:
        """Take up what a resumed run has judged."""
        for line in log:
            if "trust" in line:
                self._remember(line["trust"])

    def __call__(self, step: int, network: Network) -> dict[str, Any]:
        """Judge a network, keep it if it is the best so far, and return what goes into the log."""
        training = network.training
        now = {name: t.detach().clone() for name, t in network.state_dict().items()}
        with self.arithmetic():
            for share in _SHARES:
                network.load_state_dict(self._between(now, share))
                light = float(rain_seen(network, self.photos).mean())
                if self.admissible(self.trust.harm(self.whole(network)), light):
                    break
            judgement = self._judge(network)
        admissible = self.admissible(judgement, light)
        better = admissible and (self.best is None or judgement.gain > self.best["gain"])
        entry = {"step": step, "share": share, "admissible": admissible, "better": better, "light": light}
        entry |= asdict(judgement)
        self._remember(entry)
        if better:
            save_weights(self.config.output / KEPT, network, {"step": step, "share": share})
        network.load_state_dict(now)
        network.train(training)
        return entry

    def admissible(self, harm: Harm, light: float) -> bool:
        """Whether a network forgets and harms as little as it must, and finds no more ``light`` than there is."""
        return harm.forgotten <= self.gate.forgetting and harm.harmless and light <= self.most

    @property
    def tired(self) -> bool:
        """Whether the last ``patience`` judgements brought nothing better."""
        return self.waited >= self.gate.patience

    @property
    def accepted(self) -> bool:
        """Whether the kept network is better than the start by more than the error of that statement."""
        return self.best is not None and bool(self.best["gain"] > max(self.best["error"], self.gate.least))

    def choose(self, path: Path, info: dict[str, Any]) -> Path:
        """Write the kept weights if they are accepted, else the start's, with ``info`` and the judgement."""
        trust = {"accepted": self.accepted, "best": self.best, "routing": self.routing}
        if self.accepted:
            network = self.whole(load_weights(self.config.output / KEPT).network)
        else:
            assert self.config.network.weights is not None
            network = load_weights(self.config.network.weights).network
        return save_weights(path, network, {**info, "trust": trust})

    def whole(self, network: Network) -> Network:
        """Return what is shipped of a judged network: it alone, or with the one that restores other images."""
        if self.shipped is None:
            return network
        self.shipped.adapted = network
        return self.shipped.eval()

    def _judge(self, network: Network) -> Judgement:
        judgement = self.trust.judge(network, self.whole(network))
        share = 1.0 if self.routing is None else self.routing["photos"]
        return replace(judgement, gain=share * judgement.gain, error=share * judgement.error)

    def _remember(self, entry: dict[str, Any]) -> None:
        """Note a judgement."""
        self.best = entry if entry["better"] else self.best
        self.waited = 0 if entry["better"] else self.waited + 1

    def _between(self, now: dict[str, torch.Tensor], share: float) -> dict[str, torch.Tensor]:
        """The start's weights, moved by a share of the way to ``now``."""
        start = latest(self.start).state_dict()
        return {
            name: torch.lerp(start[name].to(t), t, share) if t.is_floating_point() else t for name, t in now.items()
        }

    def arithmetic(self) -> torch.autocast:
        """The arithmetic of the run."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def learn_routes(config: TrainConfig, router: Routed | None = None) -> dict[str, float]:
    """Return how far a router can be relied on that learns a run's photos and ``config.gate.others``.

    Args:
        config: the run.
        router: what is to learn them; with None it is only told how well one would.

    Returns:
        the shares of the ``photos`` and of the ``others`` that it takes for photos, of those that it did not learn.
    """
    assert config.gate is not None
    data, side, seed = config.data, config.gate.side, config.seed + SEED
    first = config.gate.crops  # not those that networks are judged on
    photos = UnpairedStream(data.unpaired, side, seed, data.root, 0)[range(first, first + ROUTED_PHOTOS)]
    paired = PairedStream(config.gate.others, side, seed, data.root, 0)[range(first, first + ROUTED_PAIRS)]
    rehearsed = _rehearsed(config)
    seen, others = looks(photos.rainy), looks(torch.cat([paired.rainy, paired.clean]))
    named = (seen, photos.key), (others, paired.key * 2)
    clear = looks(rehearsed.clean)
    both = np.concatenate([clear, looks(rehearsed.rainy)])
    # Rehearsed rain that the router takes is paid for with the way; where the photos' rain is like it, with photos.
    spared, shares = clear, reliability(*named, clear)
    less = reliability(*named, both)
    if less[0] >= SPARING * shares[0]:
        spared, shares = both, less
    if router is not None:
        router.learn(seen, others, spared)
    return dict(zip(("photos", "others"), shares, strict=True))


def _rehearsed(config: TrainConfig) -> PairedBatch:
    """The pairs on which nothing may be forgotten, and whose clean images must stay clear."""
    assert config.gate is not None
    data, gate = config.data, config.gate
    return PairedStream(gate.paired or data.paired, gate.side, config.seed + SEED, data.root, 0)[range(gate.crops)]
