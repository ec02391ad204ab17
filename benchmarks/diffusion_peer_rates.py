"""Runs in the peer's environment: the published U-Net of Diffusion Policy in PyTorch; one JSON line per line on stdin.

    peer-language/bin/python benchmarks/diffusion_peer_rates.py

A line is `train N` (steps of 64 windows with AdamW and averaged weights) or `sample N` (plans of 10 DDIM steps for one observation); the
answer has the rate per second. Written after the description in the paper and its appendix, for PushT with low-dimensional observations.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time

import torch
from torch import Tensor, nn

BATCH, SEEN, OBSERVED, STEPS, CHANNELS = 64, 2, 5, 16, 2
WIDTHS, KERNEL, GROUPS, EMBEDDING, LEVELS = (256, 512, 1024), 5, 8, 256, 100


class Sines(nn.Module):
    """Sinusoidal embedding of the level's number."""

    def forward(self, level: Tensor) -> Tensor:
        half = EMBEDDING // 2
        angle = level[:, None].float() * torch.exp(torch.arange(half) * -(math.log(10_000.0) / (half - 1)))
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def block(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, group norm, Mish."""
    return nn.Sequential(nn.Conv1d(inputs, outputs, KERNEL, padding=KERNEL // 2), nn.GroupNorm(GROUPS, outputs), nn.Mish())


class Residual(nn.Module):
    """Two blocks, scaled and shifted by the condition in between."""

    def __init__(self, inputs: int, outputs: int, condition: int) -> None:
        super().__init__()
        self.first, self.second = block(inputs, outputs), block(outputs, outputs)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outputs))
        self.past = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.film(condition)[..., None].chunk(2, dim=1)
        return self.second(scale * self.first(x) + shift) + self.past(x)


class UNet(nn.Module):
    """Noise from noisy plans [batch, step, channel], levels [batch] and conditions [batch, number]."""

    def __init__(self) -> None:
        super().__init__()
        told = EMBEDDING + SEEN * OBSERVED
        self.level = nn.Sequential(Sines(), nn.Linear(EMBEDDING, 4 * EMBEDDING), nn.Mish(), nn.Linear(4 * EMBEDDING, EMBEDDING))
        pairs = list(zip((CHANNELS, *WIDTHS[:-1]), WIDTHS, strict=True))
        pair = lambda a, b: nn.ModuleList([Residual(a, b, told), Residual(b, b, told)])
        self.down = nn.ModuleList([pair(a, b) for a, b in pairs])
        self.halving = nn.ModuleList([nn.Conv1d(width, width, 3, 2, 1) for width in WIDTHS[:-1]])
        self.middle = pair(WIDTHS[-1], WIDTHS[-1])
        self.up = nn.ModuleList([pair(2 * b, a) for a, b in reversed(pairs[1:])])
        self.doubling = nn.ModuleList([nn.ConvTranspose1d(a, a, 4, 2, 1) for a, _ in reversed(pairs[1:])])
        self.out = nn.Sequential(block(WIDTHS[0], WIDTHS[0]), nn.Conv1d(WIDTHS[0], CHANNELS, 1))

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        told = torch.cat([self.level(level), condition], dim=-1)
        x, kept = noisy.transpose(1, 2), []
        for i, (first, second) in enumerate(self.down):
            x = second(first(x, told), told)
            kept.append(x)
            x = self.halving[i](x) if i < len(self.halving) else x
        for one in self.middle:
            x = one(x, told)
        for (first, second), double in zip(self.up, self.doubling, strict=True):
            x = double(second(first(torch.cat([x, kept.pop()], dim=1), told), told))
        return self.out(x).transpose(1, 2)


def main() -> None:
    """Serve until stdin ends."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    network, mean = UNet(), UNet()
    optimiser = torch.optim.AdamW(network.parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6)
    ramp = (torch.arange(LEVELS + 1) / LEVELS + 0.008) / 1.008 * math.pi / 2
    kept = torch.cumprod(1 - (1 - torch.cos(ramp[1:]) ** 2 / torch.cos(ramp[:-1]) ** 2).clamp(max=0.999), 0)
    seen, plans = torch.randn(BATCH, SEEN * OBSERVED), torch.rand(BATCH, STEPS, CHANNELS) * 2 - 1

    def train() -> None:
        level, noise = torch.randint(0, LEVELS, (BATCH,)), torch.randn_like(plans)
        share = kept[level][:, None, None]
        loss = nn.functional.mse_loss(network(share.sqrt() * plans + (1 - share).sqrt() * noise, level, seen), noise)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(mean.parameters()), list(network.parameters()), 0.001)

    @torch.no_grad()
    def sample() -> None:
        x = torch.randn(1, STEPS, CHANNELS)
        numbers = list(range(LEVELS - LEVELS // 10, -1, -LEVELS // 10))
        for now, after in zip(numbers, [*numbers[1:], -1], strict=True):
            noise = network(x, torch.tensor([now]), seen[:1])
            clean = ((x - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()).clamp(-1, 1)
            share = kept[after] if after >= 0 else torch.tensor(1.0)
            x = share.sqrt() * clean + (1 - share).sqrt() * noise

    train(), sample()
    print(
        json.dumps({"torch": torch.__version__, "parameters": f"{sum(p.numel() for p in network.parameters()):,}"}), flush=True
    )
    for line in sys.stdin:
        what, count = line.split()
        start = time.perf_counter()
        for _ in range(int(count)):
            {"train": train, "sample": sample}[what]()
        print(json.dumps({"rate": int(count) / (time.perf_counter() - start)}), flush=True)


if __name__ == "__main__":
    main()
