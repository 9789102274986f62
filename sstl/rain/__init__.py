"""Rain: imaging models, the streak renderer and the recipes that tie them together."""

from sstl.rain.imaging import MAP_THRESHOLD, additive, heavy, rain_map, region, screen, streak_layer
from sstl.rain.recipes import RainSample, Recipe, compose, list_recipes, load_recipe, render
from sstl.rain.streaks import StreakLayer, render_layers

synthesize = render

__all__ = [
    "MAP_THRESHOLD",
    "RainSample",
    "Recipe",
    "StreakLayer",
    "additive",
    "compose",
    "heavy",
    "list_recipes",
    "load_recipe",
    "rain_map",
    "region",
    "render",
    "render_layers",
    "screen",
    "streak_layer",
    "synthesize",
]
