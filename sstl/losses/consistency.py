"""Consistency terms for unlabelled images: with a teacher, the own input, transformations, stages, and rain again."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from sstl.ops.processes import drawn
from sstl.rain import additive
from sstl.types import Restoration

Change = Callable[[Tensor], Tensor]  # of images (B, C, H, W)
SHRINK = (0.5, 0.9)  # below one half, thin streaks vanish


def agreement(views: Tensor, tolerance: float) -> Tensor:
    """How far a pixel's pseudo-label can be trusted: exp(-(spread / tolerance)^2), the spread over several views.

    Args:
        views: the teacher's restorations of the same pixels, (V, B, C, H, W).
        tolerance: spread (standard deviation, largest over channels) at which the weight has fallen to 1/e.

    Returns:
        Weights in (0, 1], shape (B, 1, H, W).
    """
    spread = views.var(dim=0, unbiased=False).amax(dim=1, keepdim=True)
    return torch.exp(-spread / tolerance**2)


def consistency_loss(student: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of weight * |student - target|; the target is detached.

    Cheapest solution alone: any constant that student and teacher share; the supervised term forbids it.
    """
    return (weight * (student - target.detach()).abs()).mean()


def recomposition_loss(restored: Restoration, rainy: Tensor) -> Tensor:
    """Mean |O - clip(B^ + S^ * R^)|: what was removed must have been in the image (region model).

    Cheapest solution alone: S = 0 and B^ = O ("remove nothing"); the supervised and consistency terms forbid it. What
    it forbids is colour or texture that goes missing from B^ without being called rain.
    """
    return F.l1_loss((restored.background + restored.removed).clamp(0, 1), rainy)


def equivariance_loss(restore: Change, rainy: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """f(Tx) = T f(x): mean of T weight * |f(T rainy) - T target|, T drawn anew by ``draw_transformation``.

    Cheapest solution alone: any function of single pixels, "remove nothing" and constants among them; the supervised
    term forbids it. Turns by 90 degrees ask the same of horizontal as of falling streaks, and so of horizontal lines in
    the photo; ``weight`` and a small weight of the term keep that within bounds.

    Args:
        restore: f, rainy images to backgrounds, (B, 3, H, W); trained.
        rainy: the photos x.
        target: f(x), here the teacher's; detached.
        weight: trust per pixel, (B, 1, H, W).
    """
    change = draw_transformation()
    return consistency_loss(restore(change(rainy)), change(target.detach()), change(weight))


def draw_transformation() -> Change:
    """Draw T, with probability 1/8 each: a flip or turn of the square other than the identity, or a shrinking.

    The shrinking is by a factor from 0.5 to 0.9, bilinear with antialiasing. Turns by 90 degrees exchange the sides.
    """
    kind = int(torch.randint(8, ()))
    if kind == 0:
        factor = float(torch.empty(()).uniform_(*SHRINK))
        return lambda image: _shrunk(image, factor)
    mirrored, turns = divmod(kind, 4)
    return lambda image: torch.rot90(image.flip(-1) if mirrored else image, turns, (-2, -1))


def _shrunk(image: Tensor, factor: float) -> Tensor:
    size = [max(1, round(factor * side)) for side in image.shape[-2:]]
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def stage_agreement_loss(restored: Restoration) -> Tensor:
    """Mean |B^_t - B^_last| over the earlier stages t of a recurrent network, the last one detached; 0 without stages.

    Cheapest solution alone: stages that do nothing, or all the same; the supervised term, which judges every stage,
    forbids it. Detached, the last stage is not pulled back to the first.
    """
    target = restored.background.detach()
    apart = [(stage.background - target).abs().mean() for stage in restored.stages]
    return torch.stack(apart).mean() if apart else target.new_zeros(())


def rerain_loss(restore: Change, background: Tensor, streak: Tensor, weight: Tensor) -> Tensor:
    """Mean of weight * |f(B^ + T S^) - B^|: a restored photo, its own rain again in another geometry, restored again.

    Cheapest solution alone: S^ = 0 and f the identity ("remove nothing"); the supervised term forbids it. It also keeps
    what rain B^ still has, so that it anchors and does not improve by itself; a target that improves must do that.

    Args:
        restore: f, rainy images to backgrounds; trained.
        background: B^, (B, 3, H, W) in [0, 1], here the teacher's; detached.
        streak: S^ >= 0, the light that was removed, (B, 1 or 3, H, W).
        weight: trust per pixel, (B, 1, H, W).
    """
    return consistency_loss(restore(rerendered(background, streak).detach()), background, weight)


def rerendered(background: Tensor, streak: Tensor) -> Tensor:
    """Lay streaks over backgrounds in another geometry: clip(B + T S), T drawn for each photo.

    T mirrors the layer in each axis with probability 1/2, which keeps falling rain falling, and shifts it cyclically
    by any number of pixels.
    """
    height, width = streak.shape[-2:]
    moves = drawn(len(streak), lambda n: torch.stack([_draw_move(height, width) for _ in range(n)]))
    return additive(background, torch.stack([*map(_moved, streak, moves)])).clamp(0, 1)


def _draw_move(height: int, width: int) -> Tensor:
    """Draw whether to mirror vertically and horizontally, and by how much to shift; (4,) whole numbers."""
    mirrored = [int(torch.rand(()) < 0.5) for _ in range(2)]
    return torch.tensor([*mirrored, *(int(torch.randint(side, ())) for side in (height, width))])


def _moved(layer: Tensor, move: Tensor) -> Tensor:
    vertically, horizontally, *shifts = move.tolist()
    mirrored = [axis for axis, flip in ((-2, vertically), (-1, horizontally)) if flip]
    return layer.flip(mirrored).roll(shifts, (-2, -1))
