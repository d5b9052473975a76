#!/usr/bin/env python3
"""Writes tests/golden/mixers: small random decoders whose mixers no other library has.

The references are the papers' definitions over whole [rows, rows] matrices, in float64, written here from the formulas
and differentiated by PyTorch. Usage:

    python3 scripts/make_mixer_goldens.py [--out tests/golden/mixers]

Needs torch and safetensors (versions used are recorded in the README there).
Python is needed only to regenerate the files; the tests read what is committed.
"""

import argparse
import json
import math
import os
import platform

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

IGNORED = -100  # the target of a position without one, as in torch's cross_entropy
EPS, THETA = 1e-5, 10000.0
SHAPE = dict(vocab_size=48, hidden_size=24, intermediate_size=32, num_heads=4, num_kv_heads=2, head_dim=8,
             max_position=64, rms_norm_eps=EPS, rope_theta=THETA, qk_norm=True, qkv_bias=True,
             tie_embeddings=False)
OFFSETS = [0, 17, 18, 27]

CASES = {
    # Every layer another one: a window with sinks, gates, no rotation of the probe, no queries.
    "parallax": {
        "windowed": dict(kind="parallax", window=5, sinks=2),
        "gated": dict(kind="parallax", probe_gate=True, output_gate=True),
        "still": dict(kind="parallax", probe_rope=False),
        "uniform": dict(kind="parallax", uniform_weights=True),
    },
    "lla": {
        "full": dict(kind="lla", ridge=0.5),
        "windowed": dict(kind="lla", ridge=2.0, window=6, sinks=1),
    },
    # With soft gates, as a predictor learns.
    "sp_kv": {
        "narrow": dict(kind="sp_kv", window=3, utility_hidden=7),
        "wide": dict(kind="sp_kv", window=6, utility_hidden=16, output_gate=True),
    },
}


def rms_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS) * weight


def rotate(x):
    """RoFormer over rows 0, 1, ... of x [rows, heads, d], channel i paired with i + d / 2 (Llama)."""
    rows, _, d = x.shape
    angle = torch.arange(rows)[:, None] * THETA ** (-2 * torch.arange(d // 2) / d)[None, :]
    c, s = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x[..., :d // 2], x[..., d // 2:]
    return torch.cat([a * c - b * s, b * c + a * s], -1)


class Layer:
    """The weights of one layer's mixer and what is made of one document with them."""

    def __init__(self, weights, prefix, config):
        self.w, self.prefix, self.config = weights, prefix, config

    def linear(self, name, x):
        bias = self.prefix + name + ".bias"
        return F.linear(x, self.w[self.prefix + name + ".weight"], self.w.get(bias))

    def heads(self, name, x, rotated, gate=None):
        y = self.linear(name + "_proj", x).unflatten(-1, (-1, SHAPE["head_dim"]))
        if name != "v":
            y = rms_norm(y, self.w[f"{self.prefix}{name}_norm.weight"])
        if gate is not None:
            y = y * gate.view_as(y).sigmoid()
        return rotate(y) if rotated else y

    def __call__(self, x):
        c, rows = self.config, x.shape[0]
        query_heads, d = SHAPE["num_heads"], SHAPE["head_dim"]
        group = query_heads // SHAPE["num_kv_heads"]
        q = torch.zeros(rows, query_heads, d) if c.get("uniform_weights") else self.heads("q", x, True)
        k, v = self.heads("k", x, True), self.heads("v", x, False)
        distance = torch.arange(rows)[:, None] - torch.arange(rows)[None, :]
        visible = distance >= 0
        if c["kind"] == "sp_kv":
            # Utility per key and kv head; its logarithm is added to the scores of keys outside the window.
            utility = self.linear("utility.down", F.silu(self.linear("utility.up", x))).sigmoid()
        elif c.get("window"):
            visible = visible & ((distance < c["window"]) | (torch.arange(rows)[None, :] < c.get("sinks", 0)))
        if c["kind"] == "parallax":
            r = self.heads("r", x, c.get("probe_rope", True),
                           self.linear("r_gate", x) if c.get("probe_gate") else None)
        outputs = []
        for h in range(query_heads):
            keys, values = k[:, h // group], v[:, h // group]
            scores = q[:, h] @ keys.T / math.sqrt(d)
            if c["kind"] == "sp_kv":
                bias = torch.log(utility[:, h // group] + 1e-8)[None, :]
                scores = scores + torch.where(distance >= c["window"], bias, 0.0)
            p = scores.masked_fill(~visible, -math.inf).softmax(-1)
            if c["kind"] == "parallax":
                outputs.append(self.corrected(p, keys, values, r[:, h]))
            elif c["kind"] == "lla":
                outputs.append(self.regressed(p, q[:, h], keys, values, c["ridge"]))
            else:
                outputs.append(p @ values)
        y = torch.cat(outputs, -1)
        if c.get("output_gate"):
            y = y * self.linear("o_gate", x).sigmoid()
        return self.linear("o_proj", y)

    @staticmethod
    def corrected(p, keys, values, probe):
        """Parallax: the mean of the values minus their covariance with the keys times the probe."""
        away_k = keys[None] - (p @ keys)[:, None]      # [query, key, d]
        away_v = values[None] - (p @ values)[:, None]
        covariance = torch.einsum("ij,ijx,ijy->ixy", p, away_v, away_k)
        return p @ values - torch.einsum("ixy,iy->ix", covariance, probe)

    @staticmethod
    def regressed(p, q, keys, values, ridge):
        """Local linear attention: the intercept of the weighted ridge regression of values on [1, k - q]."""
        rows, d = q.shape
        z = torch.cat([torch.ones(rows, rows, 1), keys[None] - q[:, None]], -1)
        penalty = ridge * torch.eye(d + 1)
        penalty[0, 0] = 0
        normal = torch.einsum("ij,ijx,ijy->ixy", p, z, z) + penalty
        moments = torch.einsum("ij,ijx,jy->ixy", p, z, values)
        return torch.linalg.solve(normal, moments)[:, 0]


def shapes(mixers):
    """Name -> shape of every parameter, in the order of the model."""
    hidden, inner, d = SHAPE["hidden_size"], SHAPE["intermediate_size"], SHAPE["head_dim"]
    q, kv = SHAPE["num_heads"] * d, SHAPE["num_kv_heads"] * d
    yield "model.embed_tokens.weight", (SHAPE["vocab_size"], hidden)
    for layer, c in enumerate(mixers.values()):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (hidden,)
        yield prefix + "post_attention_layernorm.weight", (hidden,)
        for name, width in (("gate", inner), ("up", inner)):
            yield f"{prefix}mlp.{name}_proj.weight", (width, hidden)
        yield prefix + "mlp.down_proj.weight", (hidden, inner)
        at = prefix + "self_attn."
        heads = {"q": q, "k": kv, "v": kv, "r": q}
        if c["kind"] != "parallax":
            del heads["r"]
        if c.get("uniform_weights"):
            del heads["q"]
        for name, width in heads.items():
            yield f"{at}{name}_proj.weight", (width, hidden)
            yield f"{at}{name}_proj.bias", (width,)
            if name != "v":
                yield f"{at}{name}_norm.weight", (d,)
        for gate, key in (("r_gate", "probe_gate"), ("o_gate", "output_gate")):
            if c.get(key):
                yield f"{at}{gate}.weight", (q, hidden)
        if c["kind"] == "sp_kv":
            width = c["utility_hidden"]
            yield at + "utility.up.weight", (width, hidden)
            yield at + "utility.up.bias", (width,)
            yield at + "utility.down.weight", (SHAPE["num_kv_heads"], width)
            yield at + "utility.down.bias", (SHAPE["num_kv_heads"],)
        yield at + "o_proj.weight", (hidden, q)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (SHAPE["vocab_size"], hidden)


def random_weight(name, shape, generator):
    """Values exactly representable in bfloat16, so that any dtype of file or engine is exact."""
    if name.endswith("norm.weight"):
        w = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float32)
    else:
        size = 1.2 / math.sqrt(shape[1]) if len(shape) == 2 else 0.5
        w = (0.5 if "embed" in name else size) * torch.randn(shape, generator=generator, dtype=torch.float32)
    return w.bfloat16()


def decode(weights, mixers, ids):
    """Logits of one document."""
    x = weights["model.embed_tokens.weight"][ids]
    for layer, config in enumerate(mixers.values()):
        prefix = f"model.layers.{layer}."
        x = x + Layer(weights, prefix + "self_attn.", config)(rms_norm(x, weights[prefix + "input_layernorm.weight"]))
        y = rms_norm(x, weights[prefix + "post_attention_layernorm.weight"])
        gate, up, down = (weights[f"{prefix}mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
        x = x + (F.silu(y @ gate.T) * (y @ up.T)) @ down.T
    return rms_norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(here, "../tests/golden/mixers"))
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one summation order, so that a rerun gives the same bytes
    torch.set_default_dtype(torch.float64)
    print(f"python {platform.python_version()}, torch {torch.__version__}")
    for seed, (case, mixers) in enumerate(CASES.items()):
        folder = os.path.join(out, case)
        os.makedirs(folder, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        stored = {name: random_weight(name, shape, generator) for name, shape in shapes(mixers)}
        weights = {name: w.double().requires_grad_() for name, w in stored.items()}
        ids = torch.randint(0, SHAPE["vocab_size"], (OFFSETS[-1],), generator=generator)
        targets = torch.cat([ids[1:], torch.tensor([IGNORED])])
        for end in OFFSETS[1:]:
            targets[end - 1] = IGNORED  # the last token of a document predicts nothing
        logits = torch.cat([decode(weights, mixers, ids[a:b]) for a, b in zip(OFFSETS[:-1], OFFSETS[1:])])
        token_loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
        valid = int((targets != IGNORED).sum())
        (token_loss.sum() / valid).backward()
        for name, w in weights.items():
            assert w.grad.abs().max() > 1e-5, f"{case}: {name} has no gradient to test"
        # JSON is YAML: the model section of a recipe.
        model = dict(SHAPE, num_layers=len(mixers), mixers=mixers, schedule=list(mixers))
        with open(os.path.join(folder, "model.yaml"), "w", encoding="utf-8") as f:
            f.write(json.dumps(model, indent=2) + "\n")
        save_file(stored, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        save_file({
            "input_ids": ids.int(),
            "document_offsets": torch.tensor(OFFSETS, dtype=torch.int32),
            "targets": targets.int(),
            "valid_targets": torch.tensor([valid], dtype=torch.int32),
            "logits": logits.detach(),
            "token_loss": token_loss.detach(),
            "loss_mean": (token_loss.sum() / valid).detach()[None],
            **{"grad." + name: w.grad for name, w in weights.items()},
        }, os.path.join(folder, "expected.safetensors"))
        print(f"{case:10} loss {token_loss.sum().item() / valid:.6f}  largest logit {logits.abs().max():.2f}")


if __name__ == "__main__":
    main()
