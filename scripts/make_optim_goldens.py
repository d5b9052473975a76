#!/usr/bin/env python3
"""Writes tests/golden/optim/*.safetensors: ten updates of PyTorch's AdamW (f64) and Muon
(pip install torch==2.13.0 safetensors). PyTorch's Muon iterates in bfloat16."""

import torch
from safetensors.torch import save_file

STEPS = 10


def run(name, make, dtype):
    torch.manual_seed(7)
    weight = torch.nn.Parameter(torch.randn(6, 10, dtype=dtype))
    gradients = torch.randn(STEPS, 6, 10, dtype=dtype)
    tensors = {"before": weight.detach().clone(), "gradients": gradients}
    optimizer = make([weight])
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    tensors["after"] = weight.detach().clone()
    save_file(tensors, f"tests/golden/optim/{name}.safetensors")


run("adamw", lambda p: torch.optim.AdamW(p, lr=3e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1),
    torch.float64)
for adjust, name in (("original", "muon_keller"), ("match_rms_adamw", "muon_moonlight")):
    run(name, lambda p: torch.optim.Muon(p, lr=2e-2, weight_decay=0.1, momentum=0.95, nesterov=True,
                                         adjust_lr_fn=adjust), torch.float32)
