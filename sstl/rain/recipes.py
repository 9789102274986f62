"""Recipes: named ranges of rain, from which each image's is drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sstl.config import load_config
from sstl.errors import SstlError, did_you_mean
from sstl.rain.camera import Camera
from sstl.rain.ranges import Range, check_ranges

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Recipe:
    """Ranges from which the parameters of one image's rain are drawn uniformly; units as in ``StreakLayer``.

    Attributes:
        imaging: relative frequency of the imaging models ``region``, ``screen`` and ``heavy``.
        layers: smallest and largest number of streak layers; they share the image's wind.
        angle: direction of the wind; ``layer_angle`` is how far a layer's direction departs from it.
        transmission, airlight: the veil, for ``heavy``: a grey airlight over a smooth random transmission.
        tapered: streaks fade at their ends.
        crossing: a recipe of the package, by name, whose layers are laid over these ones, in the same wind.
        scale: factor that a layer's length, width and blur share, by whose square its density falls, so that near
            layers are long, wide, blurred and of few streaks.
        occlusion: a layer's distance follows from its scale; things nearer than it hide it (``scene.occlusion``).
        attenuation: beta of a veil that grows with depth, for ``heavy`` (``scene.attenuation``).
        mist: spray over the near ground, for ``heavy`` (``scene.mist``).
        splashes: per 1000 pixels of near ground (``scene.splash_points``).
        lamps: how many light the drops at night (``scene.lamps``); with 0 the light is even.
        tint: how much of a colour they have, from 0 (white) to 1.
        photographed: how many photographed streak images are laid over each other instead of rendered layers; their
            weights are drawn from ``gain``.
        camera: what the camera does to the scene; None leaves it.
    """

    angle: Range
    length: Range
    density: Range
    brightness: Range
    imaging: dict[str, float] = field(default_factory=lambda: {"region": 1.0})
    layers: tuple[int, int] = (1, 1)
    layer_angle: Range = (0.0, 0.0)
    angle_spread: Range = (1.0, 1.0)
    length_spread: Range = (0.2, 0.2)
    width: Range = (1.0, 1.5)
    brightness_spread: Range = (0.3, 0.3)
    blur: Range = (0.0, 0.0)
    tapered: bool = True
    crossing: str | None = None
    scale: Range = (1.0, 1.0)
    transmission: Range = (1.0, 1.0)
    airlight: Range = (0.7, 0.7)
    occlusion: bool = False
    attenuation: Range = (0.0, 0.0)
    mist: Range = (0.0, 0.0)
    splashes: Range = (0.0, 0.0)
    lamps: tuple[int, int] = (0, 0)
    tint: Range = (0.0, 0.0)
    photographed: tuple[int, int] = (0, 0)
    gain: Range = (0.2, 1.0)
    camera: Camera | None = None

    def __post_init__(self) -> None:
        """Refuse upside-down ranges, unknown imaging models or none of them, and an unknown crossing (ValueError)."""
        check_ranges(self, signed=("angle", "layer_angle"))
        unknown = set(self.imaging) - {"region", "screen", "heavy"}
        if unknown or not sum(self.imaging.values()) > 0 or min(self.imaging.values()) < 0:
            raise ValueError(f"'imaging' is {self.imaging}; give weights to region, screen or heavy.")
        if self.crossing is not None and self.crossing not in list_recipes():
            hint = did_you_mean(self.crossing, list_recipes())
            raise ValueError(f"'crossing' is {self.crossing}; name a recipe of the package.{hint}")


def list_recipes() -> list[str]:
    """Return the names of the recipes in the package, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def about_recipe(name: str) -> str:
    """Return what a recipe of the package says of itself: the first line of its file."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Return a recipe of the package by name, or one from a YAML file; SstlError or ConfigError if there is none."""
    if str(name_or_path) in list_recipes():
        return load_config(Recipe, FOLDER / f"{name_or_path}.yaml")
    if Path(name_or_path).suffix not in (".yaml", ".yml"):
        raise SstlError(f"unknown recipe '{name_or_path}'.{did_you_mean(str(name_or_path), list_recipes())}")
    return load_config(Recipe, name_or_path)
