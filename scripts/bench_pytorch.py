#!/usr/bin/env python3
"""The PyTorch side of the benchmark: the same decoder, as a good PyTorch user would write it.

    python3 scripts/bench_pytorch.py --mode train --dtype bf16 --compile --json
    python3 scripts/bench_pytorch.py --mode decode --dtype f32
    python3 scripts/bench_pytorch.py --mode attention --dtype f32

Model: d 512, 8 layers, 8 heads, SwiGLU 1408, vocabulary 8192, tied head, RMSNorm, RoPE: 29.9M
parameters. One run is one process and one setting, so that its peak memory is its own.

train: forward, backward and fused AdamW over 8 sequences of 1024 tokens, always the same batch (the
  loss must fall). f32, or bf16 in one of two ways (--bf16-style), both with float32 master weights:
    autocast  float32 parameters and residual stream, torch.autocast around forward and loss.
    master    a bfloat16 model; AdamW on a float32 copy, gradients cast up, weights cast back.
decode: batch 1, greedy, KV cache allocated once. Eager attends to the filled part of the cache;
  compiled attends to all of it under a mask, because a growing slice would recompile or go dynamic.
attention: scaled_dot_product_attention alone, causal, forward and backward, by length.

Speed is from the median step after the warmup. Peak memory is VmHWM of this process: "peak_rss_mib"
from its start, "steady_peak_rss_mib" over the measured steps only (the mark is reset after the
warmup through /proc/self/clear_refs), which leaves the compiler's own memory out.
"""

import argparse
import json
import os
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

DIM, LAYERS, HEADS, HIDDEN, VOCAB = 512, 8, 8, 1408, 8192
HEAD_DIM = DIM // HEADS
THETA, EPS = 10000.0, 1e-5


def status_mib(key):
    with open("/proc/self/status", encoding="ascii") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    raise KeyError(key)


peak_before_reset_mib = 0.0


def reset_peak():
    """Starts a new high-water mark; the old one stays in peak_before_reset_mib."""
    global peak_before_reset_mib
    peak_before_reset_mib = max(peak_before_reset_mib, status_mib("VmHWM"))
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as f:
            f.write("5")
        return True
    except OSError:  # not allowed in some containers
        return False


def rope_table(length):
    inv_freq = THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angle = torch.arange(length, dtype=torch.float64)[:, None] * inv_freq
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    x1, x2 = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-x2, x1], dim=-1) * sin


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(DIM))

    def forward(self, x):
        return F.rms_norm(x, (DIM,), self.weight.to(x.dtype), EPS)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(DIM, 3 * DIM, bias=False)
        self.out = nn.Linear(DIM, DIM, bias=False)

    def forward(self, x, cos, sin, cache=None, position=None, mask=None):
        """position: None for a whole sequence from 0, else where this one token goes."""
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, 3, HEADS, HEAD_DIM)
        q, k, v = (t.transpose(1, 2) for t in qkv.unbind(2))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is None or position is None:
            if cache is not None:
                cache[0][:, :, :length] = k
                cache[1][:, :, :length] = v
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif mask is None:
            cache[0][:, :, position:position + 1] = k
            cache[1][:, :, position:position + 1] = v
            k, v = cache[0][:, :, :position + 1], cache[1][:, :, :position + 1]
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            cache[0].index_copy_(2, position, k)
            cache[1].index_copy_(2, position, v)
            y = F.scaled_dot_product_attention(q, cache[0], cache[1], attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, length, DIM))


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(DIM, HIDDEN, bias=False)
        self.up = nn.Linear(DIM, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, DIM, bias=False)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.attention = RMSNorm(), Attention()
        self.norm2, self.mlp = RMSNorm(), Mlp()

    def forward(self, x, *args):
        x = x + self.attention(self.norm1(x), *args)
        return x + self.mlp(self.norm2(x))


class Decoder(nn.Module):
    def __init__(self, max_length):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = RMSNorm()
        self.head = nn.Linear(DIM, VOCAB, bias=False)
        self.apply(lambda m: nn.init.normal_(m.weight, std=0.02)
                   if isinstance(m, (nn.Linear, nn.Embedding)) else None)
        self.head.weight = self.embedding.weight
        cos, sin = rope_table(max_length)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, x, cos, sin, caches, position, mask):
        for i, block in enumerate(self.blocks):
            x = block(x, cos, sin, caches[i] if caches else None, position, mask)
        return self.norm(x)

    def forward(self, ids, caches=None, autocast_dtype=None):
        """Whole sequences from position 0: ids [B, T] to logits [B, T, V]; fills the caches.

        The RoPE tables take the activations' type: float32 ones would promote q and k away from v.
        """
        x = self.embedding(ids)
        dtype = autocast_dtype or x.dtype
        cos, sin = self.cos[:ids.shape[1]].to(dtype), self.sin[:ids.shape[1]].to(dtype)
        return self.head(self.hidden(x, cos, sin, caches, None, None))

    def step_eager(self, token, position, caches):
        x = self.embedding(token)
        cos, sin = self.cos[position].to(x.dtype), self.sin[position].to(x.dtype)
        return self.head(self.hidden(x, cos, sin, caches, position, None)).argmax(-1)

    def step_static(self, token, position, caches):
        """position: I64 [1]. All shapes are the same at every step."""
        x = self.embedding(token)
        cos, sin = self.cos[position].to(x.dtype), self.sin[position].to(x.dtype)
        mask = (torch.arange(caches[0][0].shape[2]) <= position)[None, None, None]
        return self.head(self.hidden(x, cos, sin, caches, position, mask)).argmax(-1)


def compiled(function, args):
    if not args.compile:
        return function
    if args.freezing:  # parameters become constants that inductor may prepack; not for training
        from torch._inductor import config
        config.freezing = True
    mode = None if args.compile_mode == "default" else args.compile_mode
    return torch.compile(function, dynamic=False, mode=mode)


def train(args):
    bf16 = args.dtype == "bf16"
    by_hand = bf16 and args.bf16_style == "master"
    model = Decoder(args.length)
    masters = None
    if by_hand:
        masters = [p.detach().clone() for p in model.parameters()]
        cos, sin = model.cos, model.sin
        model.bfloat16()
        model.cos, model.sin = cos, sin  # stays float32 until used
        optimized = masters
    else:
        optimized = list(model.parameters())
    optimizer = torch.optim.AdamW(optimized, lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1,
                                  fused=True)
    data = torch.randint(0, VOCAB, (args.batch, args.length + 1))
    ids, targets = data[:, :-1].contiguous(), data[:, 1:].contiguous()
    cast = torch.bfloat16 if bf16 and not by_hand else None

    def loss_of(ids, targets):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast is not None):
            logits = model(ids, autocast_dtype=cast)
            return F.cross_entropy(logits.view(-1, VOCAB).float(), targets.view(-1))

    loss_of = compiled(loss_of, args)

    def step():
        loss = loss_of(ids, targets)
        loss.backward()
        if by_hand:
            for master, p in zip(masters, model.parameters()):
                master.grad = p.grad.float()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if by_hand:
            model.zero_grad(set_to_none=True)
            with torch.no_grad():
                torch._foreach_copy_(list(model.parameters()), masters)
        return loss.item()

    times, losses, steady = [], [], False
    first = time.perf_counter()
    for i in range(args.warmup + args.steps):
        if i == args.warmup:
            warmup_s = time.perf_counter() - first
            steady = reset_peak()
        start = time.perf_counter()
        losses.append(round(step(), 4))
        if i >= args.warmup:
            times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    tokens = args.batch * args.length
    in_products = sum(p.numel() for p in model.parameters())  # the tied matrix counts as the head
    # 6 per weight and token; attention: two products over T/2 keys on average, times three.
    flops = tokens * (6 * in_products + 6 * LAYERS * DIM * args.length)
    return {"parameters": in_products, "tokens_per_s": tokens / seconds, "step_s": seconds,
            "gflop_per_s": flops / seconds / 1e9, "warmup_s": warmup_s, "losses": losses,
            "step_times_s": [round(t, 4) for t in times], "steady": steady}


@torch.no_grad()
def decode(args):
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    length = args.prompt + args.generate
    model = Decoder(length).eval()
    cos, sin = model.cos, model.sin
    model.to(dtype)
    model.cos, model.sin = cos, sin
    caches = [tuple(torch.zeros(1, HEADS, length, HEAD_DIM, dtype=dtype) for _ in "kv")
              for _ in range(LAYERS)]
    prompt = torch.randint(0, VOCAB, (1, args.prompt))
    step = compiled(model.step_static, args) if args.compile else model.step_eager

    def generate():
        token = model(prompt, caches)[:, -1:].argmax(-1)
        out, times = [token.item()], []
        for position in range(args.prompt, length - 1):
            start = time.perf_counter()
            token = step(token, torch.tensor([position]) if args.compile else position, caches)
            out.append(token.item())
            times.append(time.perf_counter() - start)
        return out, times

    first = time.perf_counter()
    for _ in range(max(1, args.warmup)):
        expected, _ = generate()
    warmup_s = time.perf_counter() - first
    steady = reset_peak()
    times = []
    for _ in range(args.steps):
        out, t = generate()
        assert out == expected, "greedy decoding is not reproducible"
        times += t
    seconds = statistics.median(times)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    mean_length = (args.prompt + 1 + length) / 2
    cache = int(2 * LAYERS * DIM * mean_length * dtype.itemsize)
    return {"tokens_per_s": 1 / seconds, "tokens_per_s_mean": len(times) / sum(times),
            "weight_bytes_per_token": weights, "cache_bytes_per_token": cache,
            "gb_per_s": (weights + cache) / seconds / 1e9, "warmup_s": warmup_s,
            "first_ids": expected[:8], "steady": steady}


def attention(args):
    dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
    rows = []
    for length in args.lengths:
        q, k, v = (torch.randn(1, HEADS, length, HEAD_DIM, dtype=dtype, requires_grad=True)
                   for _ in range(3))
        upstream = torch.randn(1, HEADS, length, HEAD_DIM, dtype=dtype)
        attend = compiled(
            lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), args)
        times = []
        for i in range(args.warmup + args.steps):
            if i == args.warmup:
                reset_peak()
                before = status_mib("VmRSS")
            start = time.perf_counter()
            attend(q, k, v).backward(upstream)
            q.grad = k.grad = v.grad = None
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times[args.warmup:])
        flops = 3.5 * 2 * length * length * DIM  # causal: forward 2*T*T*d, backward 2.5 times that
        rows.append({"length": length, "seconds": seconds, "us_per_token": seconds / length * 1e6,
                     "gflop_per_s": flops / seconds / 1e9,
                     "peak_over_inputs_mib": status_mib("VmHWM") - before})
    return {"rows": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", choices=["train", "decode", "attention"], default="train")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--bf16-style", choices=["autocast", "master"], default="autocast")
    parser.add_argument("--compile", action="store_true", help="torch.compile (needs g++)")
    parser.add_argument("--compile-mode", default="default",
                        help="default or max-autotune-no-cudagraphs")
    parser.add_argument("--freezing", action="store_true", help="decode: prepack the weights")
    parser.add_argument("--steps", type=int, help="measured: train 10, decode 5 runs, attention 3")
    parser.add_argument("--warmup", type=int, help="unmeasured before them: train 3, else 1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--generate", type=int, default=128)
    parser.add_argument("--lengths", type=lambda s: [int(x) for x in s.split(",")],
                        default=[1024, 2048, 4096, 8192, 16384, 32768])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line of JSON on stdout, no text")
    args = parser.parse_args()
    args.steps = args.steps or {"train": 10, "decode": 5, "attention": 3}[args.mode]
    args.warmup = {"train": 3}.get(args.mode, 1) if args.warmup is None else args.warmup
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    result = {"mode": args.mode, "dtype": args.dtype, "compile": args.compile,
              "threads": args.threads, "torch": torch.__version__,
              "import_rss_mib": status_mib("VmRSS")}
    if args.mode == "train" and args.dtype == "bf16":
        result["bf16_style"] = args.bf16_style
    if args.compile:
        result["compile_mode"] = args.compile_mode + ("+freezing" if args.freezing else "")
    measured = {"train": train, "decode": decode, "attention": attention}[args.mode](args)
    steady = measured.pop("steady", None)
    result.update(measured)
    result["peak_rss_mib"] = max(peak_before_reset_mib, status_mib("VmHWM"))
    if steady:
        result["steady_peak_rss_mib"] = status_mib("VmHWM")
    if args.json:
        print(json.dumps(result))
        return
    for key, value in result.items():
        if key == "rows":
            for row in value:
                print("  T {length:6d}  {seconds:9.4f} s  {us_per_token:8.2f} us/token  "
                      "{gflop_per_s:7.1f} GFLOP/s  {peak_over_inputs_mib:8.1f} MiB".format(**row))
        else:
            print(f"{key:24} {value:.6g}" if isinstance(value, float) else f"{key:24} {value}")


if __name__ == "__main__":
    main()
