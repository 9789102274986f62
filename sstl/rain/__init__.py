"""Rain: imaging models, streaks, scene, camera, and the recipes that tie them together."""

from sstl.rain.imaging import MAP_THRESHOLD, additive, heavy, rain_map, region, screen, streak_layer
from sstl.rain.matching import Match, match, mean_streak, streaks_alone
from sstl.rain.recipes import Recipe, list_recipes, load_recipe
from sstl.rain.render import RainSample, StreakImages, check_streaks, compose, render
from sstl.rain.streaks import StreakLayer, render_layers

synthesize = render

__all__ = [
    "MAP_THRESHOLD",
    "Match",
    "RainSample",
    "Recipe",
    "StreakImages",
    "StreakLayer",
    "additive",
    "check_streaks",
    "compose",
    "heavy",
    "list_recipes",
    "load_recipe",
    "match",
    "mean_streak",
    "rain_map",
    "region",
    "render",
    "render_layers",
    "screen",
    "streak_layer",
    "streaks_alone",
    "synthesize",
]
