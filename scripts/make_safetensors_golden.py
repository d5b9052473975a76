#!/usr/bin/env python3
"""Writes tests/golden/checkpoint/reference.safetensors with the reference library
(pip install torch==2.13.0 safetensors)."""

import torch
from safetensors.torch import save_file

count = torch.arange(24).reshape(2, 3, 4)
x = (count.double() - 7) / 3
save_file(
    {
        "f64": x,
        "f32": x.float(),
        "f16": x.half(),
        "bf16": x.bfloat16(),
        "i64": count - 7,
        "i32": (count - 7).int(),
        "u8": count.byte(),
        "f16.ends": torch.tensor([65504.0, 2.0**-24, float("inf"), float("nan"), -0.0]).half(),
    },
    "tests/golden/checkpoint/reference.safetensors",
    metadata={"made by": "safetensors"},
)
