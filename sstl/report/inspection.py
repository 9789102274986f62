"""What a network costs and sees: parameters, multiply-adds, receptive fields and their holes, time and memory."""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from sstl.errors import SstlError
from sstl.networks import Network
from sstl.ops.memory import peak_memory
from sstl.ops.precision import resolve_precision
from sstl.restore import Restorer

HEIGHT, WIDTH = 321, 481  # of the photographs of BSDS500, on which deraining is timed
REPEATS = 5  # restorations over which the median time is taken, after one that warms up
PATIENCE = 5.0  # seconds; after them no restoration is repeated
NEGLIGIBLE = 1 - 0.9545  # of the largest gradient: what lies beyond two standard deviations of a normal distribution
UNBOUNDED = 129  # pixels; side of the probe of a network without a declared radius
MEMORY = 1.5e9  # bytes that a probe may keep for its gradient
# Multiply-adds of the probe for the holes, and of those for the gradients together: some ten seconds on two cores. What
# matters lies near the middle, but holes may be anywhere.
SUPPORT_BUDGET, GRADIENT_BUDGET = 130e9, 60e9

Field = NDArray[np.float64]
Support = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Inspection:
    """The figures of one network.

    Attributes:
        parameters: their number.
        multiply_adds: of the convolutions and matrix products for one image of ``height`` x ``width``.
        receptive_radius: as the network declares it: pixels to each side, or None if unbounded.
        receptive_field: 2 radius + 1: the side of the square that an output pixel can see, or None.
        effective_field: side of a square of as many pixels as matter to an output pixel, see ``effective_size``.
        effective_is_bound: whether the effective field may be larger than that, because its probe was too small.
        probe: side of the square in which the holes were looked for; the receptive field, if that was affordable.
        holes: how many pixels no path reaches, see ``structural_support`` and ``holes_of``.
        hole_share: the same as a share of the reached pixels' bounding box.
        height, width: of the image that was restored, in pixels.
        seconds: the median time of a restoration on the processor.
        peak_bytes: how far one restoration raises the process's memory; None where the system cannot tell.
        precision: in which it was restored, "bfloat16" or "float32".
        gradients, support: the maps of ``receptive_field`` and ``structural_support``.
    """

    parameters: int
    multiply_adds: int
    receptive_radius: int | None
    receptive_field: int | None
    effective_field: float
    effective_is_bound: bool
    probe: int
    holes: int
    hole_share: float
    height: int
    width: int
    seconds: float
    peak_bytes: int | None
    precision: str
    gradients: Field = field(repr=False)
    support: Support = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return all figures, without the maps, as plain values for JSON."""
        return {name: value for name, value in vars(self).items() if name not in ("gradients", "support")}


def inspect(
    network: Network, height: int = HEIGHT, width: int = WIDTH, samples: int = 4, repeats: int = REPEATS
) -> Inspection:
    """Measure what a network costs and sees, on the processor and on copies: the network itself stays as it is.

    Args:
        network: with fresh or trained weights; they matter to the effective field only.
        height: of the image to restore, in pixels.
        width: of the image to restore.
        samples: random inputs over which gradients are averaged.
        repeats: restorations over which the median time is taken, after one that warms up; fewer if they are slow.

    Raises:
        SstlError: the image has no pixels.
    """
    if height < 1 or width < 1:
        raise SstlError(f"an image of {height} x {width} pixels; height and width must be at least 1.")
    seconds, peak_bytes, precision = cost_of_restoration(network, height, width, repeats)
    gradients, support = receptive_field(network, samples), structural_support(network)
    radius, holes = network.receptive_radius, int(holes_of(support).sum())
    return Inspection(
        parameters=count_parameters(network),
        multiply_adds=multiply_adds(network, height, width),
        receptive_radius=radius,
        receptive_field=_side(radius),
        effective_field=effective_size(gradients),
        effective_is_bound=radius is None or (len(gradients) <= 2 * radius and _touches_border(gradients)),
        probe=len(support),
        holes=holes,
        hole_share=holes / (holes + int(support.sum())),
        height=height,
        width=width,
        seconds=seconds,
        peak_bytes=peak_bytes,
        precision=precision,
        gradients=gradients,
        support=support,
    )


class Cost(NamedTuple):
    """What one restoration takes: the median seconds, the peak of memory in bytes (or None) and the arithmetic."""

    seconds: float
    peak_bytes: int | None
    precision: str


def cost_of_restoration(network: Network, height: int = HEIGHT, width: int = WIDTH, repeats: int = REPEATS) -> Cost:
    """Restore a random image with a copy of the network, on the processor, and measure what that takes."""
    device = torch.device("cpu")
    restorer = Restorer(_frozen(network), device, resolve_precision("auto", device))
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    restorer.restore(image[:, :8, :8])  # what the libraries set up once is not the network's
    with peak_memory() as peak:
        restorer.restore(image)
    seconds: list[float] = []
    while not seconds or (len(seconds) < repeats and sum(seconds) < PATIENCE):
        start = time.perf_counter()
        restorer.restore(image)
        seconds.append(time.perf_counter() - start)
    return Cost(statistics.median(seconds), peak.bytes, str(restorer.dtype).removeprefix("torch."))


def count_parameters(network: nn.Module) -> int:
    """Return the number of a module's parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def multiply_adds(network: Network, height: int = HEIGHT, width: int = WIDTH) -> int:
    """Return the multiply-adds of the convolutions and matrix products for one image."""
    # On the "meta" device only shapes are computed.
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        _frozen(network).to("meta")(torch.empty(1, 3, height, width, device="meta"))
    return int(counter.get_total_flops()) // 2


def receptive_field(network: Network, samples: int = 4, seed: int = 0) -> Field:
    """Return how much the pixels of the input matter to the output pixel in the middle, 1 for the one that does most.

    It is the gradient of the background's summed channels with respect to the input, in magnitude summed over the
    input's channels and averaged over random inputs (Luo et al., NeurIPS 2016).

    Returns:
        A square with the output pixel in the middle. Its odd side is the declared receptive field, less if that would
        take too long, and 129 pixels for an unbounded network.
    """
    network = _frozen(network)
    side = _probe(network, GRADIENT_BUDGET / samples)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(side, side)
    for _ in range(samples):
        total += _gradient(network, torch.rand(1, 3, side, side, generator=generator)).abs().sum(dim=0)
    return (total / (total.max() or 1)).double().numpy()


def structural_support(network: Network, seed: int = 0) -> Support:
    """Return the pixels from which a path leads to the output pixel in the middle, whatever the weights.

    On a copy every kernel becomes a positive average with random weights and every rectifier passes everything, so that
    nothing cancels and no gradient vanishes where there is a path. A network that sees everything, or whose gradients
    are not finite, has no holes.

    Returns:
        A square as that of ``receptive_field``, if larger where that one was cut.
    """
    network = _frozen(network)
    side = _probe(network, SUPPORT_BUDGET)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.uniform_(0.05, 0.15, generator=generator)
        if parameter.ndim > 1:  # to a quarter of the mean: a deep stack of residual blocks grows slowly
            parameter.div_(4 * parameter.sum(dim=tuple(range(1, parameter.ndim)), keepdim=True))
    with _AllPaths():
        gradient = _gradient(network, torch.rand(1, 3, side, side, generator=generator))
    return (gradient != 0).any(dim=0).numpy()


def effective_size(gradients: Field) -> float:
    """Return the square root of the number of pixels that matter: the side of a square of as many.

    Those count whose gradient is above 4.55 % of the largest (Luo et al., NeurIPS 2016), and always the pixel in the
    middle itself; the largest is taken beside it, because a residual network passes that pixel on unchanged, and beside
    its gradient all others would vanish.
    """
    return math.sqrt(int(_matters(gradients).sum()))


def bounding_box(support: Support) -> tuple[slice, slice]:
    """Return the rows and the columns from the first pixel of the support to its last."""
    rows, columns = (np.flatnonzero(support.any(axis=axis)) for axis in (1, 0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def holes_of(support: Support) -> Support:
    """Return the pixels of the support's bounding box that do not belong to it, as a map of the support's shape."""
    holes = np.zeros_like(support)
    box = bounding_box(support)
    holes[box] = ~support[box]
    return holes


class _AllPaths(TorchFunctionMode):
    """Let all that reaches a layer pass it, and keep gradients from fading on their way back.

    Rectifiers and gates that could close become the identity, the maximum of a pool its mean. At each convolution the
    gradient becomes 1 where it is not 0: only that is asked for, and after a hundred layers a corner's share of an
    average is no longer a float32.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run one function of torch, or what stands for it."""
        name = func.__name__.rstrip("_")
        if name in ("relu", "relu6", "hardtanh", "clamp", "clamp_min", "sigmoid", "hardsigmoid", "tanh"):
            return args[0]
        if name == "max_pool2d":
            return _mean_pool(*args, **(kwargs or {}))
        if name.startswith("conv") and args[0].requires_grad:
            args[0].register_hook(lambda gradient: (gradient != 0).to(gradient.dtype))
        return func(*args, **(kwargs or {}))


def _mean_pool(image: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, **options: Any) -> Tensor:
    return F.avg_pool2d(image, kernel_size, stride, padding, options.get("ceil_mode", False))


def _frozen(network: Network) -> Network:
    return copy.deepcopy(network).cpu().float().eval().requires_grad_(False)


def _gradient(network: Network, image: Tensor) -> Tensor:
    """Return the gradient (3, H, W) of the background's pixel in the middle, its channels summed."""
    image.requires_grad_()
    row, column = (side // 2 for side in image.shape[-2:])
    (gradient,) = torch.autograd.grad(network(image).background[..., row, column].sum(), image)
    return gradient[0]


def _side(radius: int | None) -> int | None:
    return None if radius is None else 2 * radius + 1


def _probe(network: Network, budget: float) -> int:
    """Return the odd side of the image to look at: the whole receptive field, if time and memory allow."""
    side = _side(network.receptive_radius) or UNBOUNDED
    cost, kept = _demand(network, side)
    share = min(1, budget / max(cost, 1), MEMORY / max(kept, 1))
    return max(int(side * math.sqrt(share)) - 1, 0) // 2 * 2 + 1


def _demand(network: Network, side: int) -> tuple[int, int]:
    """Return the multiply-adds for a square image, and the bytes that are kept for the gradient."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    # On the "meta" device only shapes are computed.
    image = torch.empty(1, 3, side, side, device="meta", requires_grad=True)
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(keep, lambda tensor: tensor):
        _frozen(network).to("meta")(image)
    return int(counter.get_total_flops()) // 2, kept


def _matters(gradients: Field) -> Support:
    middle = len(gradients) // 2
    beside = gradients.copy()
    beside[middle, middle] = 0
    found: Support = beside > NEGLIGIBLE * beside.max()
    found[middle, middle] = True
    return found


def _touches_border(gradients: Field) -> bool:
    matters = _matters(gradients)
    return bool(matters.sum() > matters[1:-1, 1:-1].sum())
