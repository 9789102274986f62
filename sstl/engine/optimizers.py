"""Every group of a method's parameters with an optimiser, a schedule and a clipping of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from sstl.compat import import_torchvision_user
from sstl.engine.config import OptimizerConfig, TrainConfig
from sstl.errors import ConfigError, did_you_mean
from sstl.methods import Method


@dataclass
class Group:
    """Parameters that are optimised together.

    Attributes:
        optimizer: the torch optimiser, whose state is saved.
        prepared: what Accelerate made of it, which takes the steps.
        scheduler: timm's; a function of the step alone, so nothing of it needs saving.
        clip_norm: largest norm of the group's gradient.
    """

    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    prepared: Any
    scheduler: Any
    clip_norm: float

    def clip(self, accelerator: Accelerator) -> torch.Tensor:
        """Scale the gradient down to ``clip_norm`` and return the norm that it had."""
        norm: torch.Tensor = accelerator.clip_grad_norm_(self.parameters, self.clip_norm)
        return norm


def create_groups(config: TrainConfig, method: Method, accelerator: Accelerator) -> dict[str, Group]:
    """Return a method's groups by name: ``config.optimizers`` names those that do not use ``config.optimizer``.

    Raises:
        ConfigError: an optimiser is unknown, or configured for a group that the method does not have.
    """
    parameters = method.groups()
    for name in config.optimizers:
        if name not in parameters:
            raise ConfigError(
                f"optimizers: method '{config.method.name}' has no parameters '{name}'.{did_you_mean(name, parameters)}"
            )
    return {
        name: _group(config.optimizers.get(name, config.optimizer), config.steps, own, accelerator)
        for name, own in parameters.items()
    }


def _group(settings: OptimizerConfig, steps: int, parameters: list[nn.Parameter], accelerator: Accelerator) -> Group:
    optim = import_torchvision_user("timm.optim")
    more = {} if settings.betas is None else {"betas": settings.betas}
    try:
        optimizer = optim.create_optimizer_v2(
            parameters,
            opt=settings.name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **more,
        )
    except (ValueError, AssertionError, TypeError) as error:
        raise ConfigError(f"optimizer.name is '{settings.name}': {error}; for example adamw.") from None
    clip_norm = float("inf") if settings.clip_norm is None else settings.clip_norm
    schedule = _schedule(settings, steps, optimizer)
    return Group(parameters, optimizer, accelerator.prepare_optimizer(optimizer), schedule, clip_norm)


def _schedule(settings: OptimizerConfig, steps: int, optimizer: torch.optim.Optimizer) -> Any:
    scheduler = import_torchvision_user("timm.scheduler")
    shared = {"warmup_t": settings.warmup_steps, "warmup_lr_init": settings.lr / 100, "t_in_epochs": False}
    if settings.schedule == "cosine":
        return scheduler.CosineLRScheduler(optimizer, t_initial=steps, lr_min=settings.lr * settings.final, **shared)
    if settings.every:
        return scheduler.StepLRScheduler(optimizer, decay_t=settings.every, decay_rate=settings.decay, **shared)
    # timm counts a milestone as reached one step early.
    milestones = [milestone + 1 for milestone in settings.milestones]
    return scheduler.MultiStepLRScheduler(optimizer, decay_t=milestones, decay_rate=settings.decay, **shared)
