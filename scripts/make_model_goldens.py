#!/usr/bin/env python3
"""Writes tests/golden/models: tiny random decoders with reference logits, losses and gradients.

The references come from Hugging Face transformers, run in float64. Usage:

    python3 scripts/make_model_goldens.py [--out tests/golden/models]

Needs torch, transformers and safetensors (versions used are recorded in the README there).
Python is needed only to regenerate the files; the tests read what is committed.
"""

import argparse
import copy
import json
import math
import os
import platform

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

IGNORED = -100  # the target of a position without one, as in torch's cross_entropy
PROMPT = 10
GENERATED = 16
MIN_MARGIN = 2e-3  # least allowed gap between the best and second logit when decoding greedily


class Float64(TorchFunctionMode):
    """Answers every request for float32 with float64, and fails if a narrower result appears.

    transformers computes RMSNorm, the softmax and all RoPE tables in float32 even when the model is
    in float64 (.to(torch.float32), dtype=torch.float, .float()), which limits a reference to 1e-7
    per operation and far less after a few layers.
    """

    NARROW = (torch.float32, torch.bfloat16, torch.float16)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        def widen(x):
            if x is torch.float32:
                return torch.float64
            return type(x)(widen(y) for y in x) if type(x) in (tuple, list) else x

        if func is torch.Tensor.float:
            func = torch.Tensor.double
        result = func(*widen(args), **{k: widen(v) for k, v in (kwargs or {}).items()})
        for r in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(r, torch.Tensor) and r.dtype in self.NARROW:
                raise TypeError(f"{func} returned {r.dtype} inside the float64 reference")
        return result


def apply_minicpm_scalings(model, scale_emb, scale_depth, dim_model_base):
    """Turns a Llama into a MiniCPM (arXiv 2404.06395 section 4; names as in its config.json).

    transformers has no class for MiniCPM 1/2/4 (MiniCPM3 has latent attention). They are Llama with
      embeddings  * scale_emb
      each residual branch (attention output, MLP output) * scale_depth / sqrt(num_hidden_layers)
      the input of lm_head / (hidden_size / dim_model_base)
    """
    config = model.config
    branch = scale_depth / math.sqrt(config.num_hidden_layers)
    model.model.embed_tokens.register_forward_hook(lambda m, args, out: out * scale_emb)
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda m, args, out: (out[0] * branch, *out[1:]))
        layer.mlp.register_forward_hook(lambda m, args, out: out * branch)
    divisor = config.hidden_size / dim_model_base
    model.lm_head.register_forward_pre_hook(lambda m, args: (args[0] / divisor,))


SMALL = dict(vocab_size=64, hidden_size=32, intermediate_size=24, num_hidden_layers=2,
             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
             rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2)
ROPE = dict(SMALL, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
            tie_word_embeddings=True)
# (file name, document offsets, number of targets masked out at random)
ROW = ("expected", [0, 24], 0)


def cases():
    """name -> (config, model class, dtype of model.safetensors, rows, MiniCPM scalings, seed)."""
    yield "llama", LlamaConfig(**dict(
        SMALL, vocab_size=96, intermediate_size=24, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})), LlamaForCausalLM, \
        torch.float32, [("expected", [0, 28], 0), ("expected_packed", [0, 9, 10, 28], 4)], None, 11
    yield "llama3", LlamaConfig(**dict(
        SMALL, num_attention_heads=2, num_key_value_heads=1, rms_norm_eps=1e-5,
        tie_word_embeddings=True, max_position_embeddings=512, rope_parameters={
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64})), \
        LlamaForCausalLM, torch.bfloat16, [ROW], None, 12
    yield "qwen3", Qwen3Config(**dict(
        SMALL, num_attention_heads=2, num_key_value_heads=1, head_dim=24, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})), Qwen3ForCausalLM, \
        torch.bfloat16, [ROW], None, 13
    yield "qwen2", Qwen2Config(**dict(
        SMALL, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0})), Qwen2ForCausalLM, \
        torch.bfloat16, [ROW], None, 14
    yield "mistral", MistralConfig(**dict(
        SMALL, sliding_window=6, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})), MistralForCausalLM, \
        torch.bfloat16, [("expected", [0, 28], 0), ("expected_packed", [0, 4, 19, 28], 3)], None, 15
    yield "minicpm", LlamaConfig(**dict(
        SMALL, num_hidden_layers=3, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0})), LlamaForCausalLM, \
        torch.bfloat16, [ROW], dict(scale_emb=4, scale_depth=1.4, dim_model_base=16), 16
    yield "smollm2", LlamaConfig(**dict(
        SMALL, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0})), LlamaForCausalLM, \
        torch.bfloat16, [ROW], None, 17
    yield "rope_linear", LlamaConfig(**dict(
        ROPE, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5})), \
        LlamaForCausalLM, torch.bfloat16, [ROW], None, 18
    # theta and the betas are chosen so that the ramp covers several of the 8 frequencies.
    yield "rope_yarn", LlamaConfig(**dict(
        ROPE, max_position_embeddings=64, rope_parameters={
            "rope_type": "yarn", "rope_theta": 50.0, "factor": 4.0, "beta_fast": 1.0,
            "beta_slow": 0.1, "original_max_position_embeddings": 16})), LlamaForCausalLM, \
        torch.bfloat16, [ROW], None, 19
    # The row of 28 tokens is longer than original_max_position_embeddings and so takes long_factor.
    yield "rope_longrope", LlamaConfig(**dict(
        ROPE, max_position_embeddings=80, rope_parameters={
            "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 26,
            "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0],
            "long_factor": [1.1, 1.4, 2.0, 2.9, 4.0, 6.5, 9.0, 12.0]})), LlamaForCausalLM, \
        torch.bfloat16, [("expected", [0, 28], 0), ("expected_short", [0, 16], 0)], None, 20


def random_weights(model, generator, embedding_std):
    """Values exactly representable in bfloat16, so that any dtype of file or engine is exact."""
    weights = {}
    for name, p in model.named_parameters():  # a tied head appears once, as the embedding
        if name.endswith("norm.weight"):
            w = 0.5 + torch.rand(p.shape, generator=generator)
        elif name.endswith(".bias"):
            w = 0.5 * torch.randn(p.shape, generator=generator)
        elif name == "model.embed_tokens.weight":
            w = embedding_std * torch.randn(p.shape, generator=generator)
        else:
            w = 1.2 / math.sqrt(p.shape[1]) * torch.randn(p.shape, generator=generator)
        weights[name] = w.bfloat16()
    return weights


def build(config, model_class, weights, scalings, dtype):
    """A model of this dtype; call inside Float64() for a reference, outside for plain float32."""
    config._attn_implementation = "eager"
    torch.set_default_dtype(dtype)
    model = model_class(config).eval()
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(weights[name].to(dtype) if dtype != torch.float64 else weights[name].double())
    if scalings:
        apply_minicpm_scalings(model, **scalings)
    return model


def run_row(model, ids, targets, offsets):
    """Each document as its own sequence: (logits, per-token loss, gradients of the mean loss)."""
    model.zero_grad()
    parts = list(zip(offsets[:-1], offsets[1:]))
    logits = torch.cat([model(ids[None, a:b], use_cache=False).logits[0] for a, b in parts])
    token_loss = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    (token_loss.sum() / (targets != IGNORED).sum()).backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters()}
    return logits.detach(), token_loss.detach(), grads


def make_row(model, plain_model, offsets, masked, generator):
    vocab = model.config.vocab_size
    length = offsets[-1]
    ids = torch.randint(0, vocab, (length,), generator=generator)
    targets = torch.cat([ids[1:], torch.tensor([IGNORED])])
    for end in offsets[1:]:
        targets[end - 1] = IGNORED  # the last token of a document predicts nothing
    open_positions = (targets != IGNORED).nonzero()[:, 0]
    chosen = torch.randperm(len(open_positions), generator=generator)[:masked]
    targets[open_positions[chosen]] = IGNORED

    with Float64():
        logits, token_loss, grads = run_row(model, ids, targets, offsets)
    # Guards the float64 mode itself: stock transformers in float32 must agree to float32 accuracy.
    plain = run_row(plain_model, ids, targets, offsets)
    torch.testing.assert_close(plain[0].double(), logits, rtol=1e-4, atol=1e-4)
    for name, g in plain[2].items():
        torch.testing.assert_close(g.double(), grads[name], rtol=1e-3, atol=1e-5)
        assert grads[name].abs().max() > 1e-5, f"{name} has no gradient to test"

    valid = int((targets != IGNORED).sum())
    tensors = {
        "input_ids": ids.int(),
        "document_offsets": torch.tensor(offsets, dtype=torch.int32),
        "targets": targets.int(),
        "valid_targets": torch.tensor([valid], dtype=torch.int32),
        "logits": logits.float(),
        "token_loss": token_loss,
        "loss_sum": token_loss.sum()[None],
        "loss_mean": token_loss.sum()[None] / valid,
    }
    tensors.update({"grad." + n: g.float() for n, g in grads.items()})
    return tensors


@torch.no_grad()
def make_decode(model, generator):
    """Greedy continuation, computed twice: from scratch for each token, and with the cache."""
    vocab = model.config.vocab_size
    for _ in range(200):  # until no choice of the continuation is a near tie
        prompt = torch.randint(0, vocab, (PROMPT,), generator=generator)
        with Float64():
            ids = prompt
            rows = []
            for _ in range(GENERATED):
                rows.append(model(ids[None], use_cache=False).logits[0, -1])
                ids = torch.cat([ids, rows[-1].argmax()[None]])
            logits = torch.stack(rows)
            top = logits.topk(2).values
            margin = top[:, 0] - top[:, 1]
            if margin.min() < MIN_MARGIN or len(set(ids[PROMPT:].tolist())) < 5:
                continue
            out = model(prompt[None], use_cache=True)
            for step in range(GENERATED):
                torch.testing.assert_close(out.logits[0, -1], logits[step], rtol=1e-10, atol=1e-10)
                out = model(ids[None, PROMPT + step:PROMPT + step + 1], use_cache=True,
                            past_key_values=out.past_key_values)
        return {"prompt_ids": prompt.int(), "greedy_ids": ids[PROMPT:].int(), "margin": margin,
                "best_logit": top[:, 0].contiguous()}
    raise RuntimeError("no prompt found whose greedy continuation is free of near ties")


def check_window_counts_current_token():
    """One Mistral layer: changing token p must change exactly outputs p .. p + window - 1."""
    window, length, p = 5, 16, 4
    config = MistralConfig(**dict(SMALL, num_hidden_layers=1, sliding_window=window))
    config._attn_implementation = "eager"
    model = MistralForCausalLM(config).eval()
    ids = torch.arange(length)
    other = ids.clone()
    other[p] = 60
    with torch.no_grad():
        changed = (model(ids[None]).logits != model(other[None]).logits).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == list(range(p, p + window)), changed


def config_json(config, model_class, weight_dtype, scalings):
    """config.json as transformers 5 writes it, and the same in the key layout of transformers 4."""
    config.architectures = [model_class.__name__]
    config.dtype = weight_dtype
    new = json.loads(config.to_json_string(use_diff=False))
    drop = ("_name_or_path", "id2label", "label2id", "problem_type", "return_dict",
            "output_attentions", "output_hidden_states", "chunk_size_feed_forward",
            "is_encoder_decoder", "pretraining_tp")
    new = {k: v for k, v in new.items() if k not in drop}
    if scalings:
        new.update(scalings, architectures=["MiniCPMForCausalLM"], model_type="minicpm")
    old = dict(new)
    rope = copy.deepcopy(old.pop("rope_parameters"))
    old["rope_theta"] = rope.pop("rope_theta")
    old["rope_scaling"] = None if rope["rope_type"] == "default" else rope
    old["torch_dtype"] = old.pop("dtype")
    old["transformers_version"] = "4.51.0"
    if not scalings:  # transformers itself must read both alike
        again = type(config)(**copy.deepcopy({k: v for k, v in old.items() if k != "model_type"}))
        assert again.rope_parameters == config.rope_parameters, (again, config)
    return new, old


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=os.path.join(here, "../tests/golden/models"))
    out = parser.parse_args().out
    torch.set_num_threads(1)  # one summation order, so that a rerun gives the same bytes
    transformers.logging.set_verbosity_error()
    print(f"python {platform.python_version()}, torch {torch.__version__}, "
          f"transformers {transformers.__version__}")
    check_window_counts_current_token()

    for name, config, model_class, weight_dtype, rows, scalings, seed in cases():
        folder = os.path.join(out, name)
        os.makedirs(folder, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        # Small enough that the tied MiniCPM, whose embedding is scaled up, doesn't just echo.
        probe = model_class(config)
        weights = random_weights(probe, generator, 0.1 if scalings else 0.5)
        with Float64():
            model = build(config, model_class, weights, scalings, torch.float64)
        plain = build(config, model_class, weights, scalings, torch.float32)

        for layout, text in zip(("config.json", "config_v4.json"),
                                config_json(config, model_class, weight_dtype, scalings)):
            with open(os.path.join(folder, layout), "w", encoding="utf-8") as f:
                f.write(json.dumps(text, indent=2, sort_keys=True) + "\n")
        save_file({n: w.to(weight_dtype) for n, w in weights.items()},
                  os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
        for file, offsets, masked in rows:
            tensors = make_row(model, plain, offsets, masked, generator)
            save_file(tensors, os.path.join(folder, file + ".safetensors"))
            print(f"{name:14} {file:16} loss {tensors['loss_mean'].item():.6f}  "
                  f"valid {tensors['valid_targets'].item()}  "
                  f"largest logit {tensors['logits'].abs().max():.2f}")
        decode = make_decode(model, generator)
        save_file(decode, os.path.join(folder, "decode.safetensors"))
        print(f"{name:14} decode           {decode['greedy_ids'].tolist()}  "
              f"least margin {decode['margin'].min():.4f}")


if __name__ == "__main__":
    main()
