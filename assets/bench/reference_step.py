"""Takes the training steps of patchtui in PyTorch and prints their cost as one line of JSON.

Reads a request from standard input: sizes, stages, optimizer, threads and mode (src/bench/reference.rs);
null asks for the versions only. The model is the LLaMA of transformers. A patch is the mean of its K embeddings; each
position predicts the K tokens of the next patch, and its loss is the mean of the K losses (arXiv 2407.12665).

Exit codes: 3 without torch, 4 if this torch does not support the request.
"""

import json
import math
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
    from torch.utils.checkpoint import checkpoint
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)


class Attention(nn.Module):
    def __init__(self, size):
        super().__init__()
        hidden, self.width = size["hidden_size"], size["hidden_size"] // size["num_attention_heads"]
        key_value = size["num_key_value_heads"] * self.width
        self.shares_keys = key_value != hidden
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, key_value, bias=False)
        self.v_proj = nn.Linear(hidden, key_value, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, rows, cos, sin):
        batch, length, hidden = rows.shape
        heads = lambda rows: rows.view(batch, length, -1, self.width).transpose(1, 2)
        queries, keys, values = heads(self.q_proj(rows)), heads(self.k_proj(rows)), heads(self.v_proj(rows))
        queries, keys = turned(queries, cos, sin), turned(keys, cos, sin)
        if self.shares_keys:
            groups = queries.shape[1] // keys.shape[1]
            keys, values = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, hidden))


def turned(heads, cos, sin):
    low, high = heads.chunk(2, -1)
    return heads * cos + torch.cat((-high, low), -1) * sin


class Mlp(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gate_proj = nn.Linear(size["hidden_size"], size["intermediate_size"], bias=False)
        self.up_proj = nn.Linear(size["hidden_size"], size["intermediate_size"], bias=False)
        self.down_proj = nn.Linear(size["intermediate_size"], size["hidden_size"], bias=False)

    def forward(self, rows):
        return self.down_proj(F.silu(self.gate_proj(rows)) * self.up_proj(rows))


class Layer(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.self_attn, self.mlp = Attention(size), Mlp(size)
        self.input_layernorm = nn.RMSNorm(size["hidden_size"], size["rms_norm_eps"])
        self.post_attention_layernorm = nn.RMSNorm(size["hidden_size"], size["rms_norm_eps"])

    def forward(self, rows, cos, sin):
        rows = rows + self.self_attn(self.input_layernorm(rows), cos, sin)
        return rows + self.mlp(self.post_attention_layernorm(rows))


class Trunk(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embed_tokens = nn.Embedding(size["vocab_size"], size["hidden_size"])
        self.layers = nn.ModuleList(Layer(size) for _ in range(size["num_hidden_layers"]))
        self.norm = nn.RMSNorm(size["hidden_size"], size["rms_norm_eps"])


class Llama(nn.Module):
    """A model that returns the loss of sequences; its parameters are named as in transformers."""

    def __init__(self, size, recompute):
        super().__init__()
        self.size, self.recompute = size, recompute
        self.model = Trunk(size)
        self.lm_head = nn.Linear(size["hidden_size"], size["vocab_size"], bias=False)
        if size["tie_word_embeddings"]:
            self.lm_head.weight = self.model.embed_tokens.weight
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, 0.0, size["initializer_range"])

    def forward(self, ids, patch_size, cos, sin):
        rows = self.model.embed_tokens(ids)
        if patch_size > 1:
            rows = rows.view(ids.shape[0], -1, patch_size, rows.shape[-1]).mean(2)
        for layer in self.model.layers:
            rows = checkpoint(layer, rows, cos, sin, use_reentrant=False) if self.recompute else layer(rows, cos, sin)
        logits = self.lm_head(self.model.norm(rows))[:, :-1].flatten(0, 1)
        targets = ids[:, patch_size:].reshape(-1, patch_size)
        losses = [F.cross_entropy(logits, targets[:, idx]) for idx in range(patch_size)]
        return sum(losses) / patch_size


def angles(size, length, device):
    width = size["hidden_size"] // size["num_attention_heads"]
    rates = 1.0 / size["rope_theta"] ** (torch.arange(0, width, 2, device=device).float() / width)
    turns = torch.outer(torch.arange(length, device=device).float(), rates)
    turns = torch.cat((turns, turns), -1)
    return turns.cos(), turns.sin()


def load_weights(model, path):
    """Loads `model` from a safetensors file: a length, a JSON header, and the bytes of the tensors."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    first = 8 + length
    header.pop("__metadata__", None)
    size = first + max(entry["data_offsets"][1] for entry in header.values())
    content = torch.from_file(path, shared=False, size=size, dtype=torch.uint8)
    weights = dict(model.named_parameters())
    if weights.keys() != header.keys():
        sys.exit(f"the weights have other names: {sorted(weights.keys() ^ header.keys())[:4]}")
    with torch.no_grad():
        for name, entry in header.items():
            start, end = (first + offset for offset in entry["data_offsets"])
            weights[name].copy_(content[start:end].clone().view(torch.float32).view(entry["shape"]))


class Tokens:
    """Token ids of every step, from a file or random."""

    def __init__(self, request, device):
        self.vocab_size, self.device, self.ids = request["model"]["vocab_size"], device, None
        if request["tokens"]:
            dtype = torch.int16 if request["token_bytes"] == 2 else torch.int32
            ids = torch.from_file(request["tokens"], shared=False, size=request["num_tokens"], dtype=dtype)
            self.ids = ids.long() & (0xFFFF if request["token_bytes"] == 2 else 0xFFFFFFFF)

    def step(self, idx, stage):
        shape = (stage["num_micro_batches"], stage["micro_batch_size"], stage["context_length"] * stage["patch_size"])
        count = shape[0] * shape[1] * shape[2]
        if self.ids is None:
            return torch.randint(0, self.vocab_size, shape)
        return self.ids[idx * count : (idx + 1) * count].view(shape)


def new_optimizer(model, rule, learning_rate):
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    norms = [weight for weight in model.parameters() if weight.dim() == 1]
    groups = [{"params": matrices, "weight_decay": rule["weight_decay"]}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, learning_rate, tuple(rule["betas"]), rule["epsilon"], fused=True)


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_stage(stage, request, model, optimizer, tokens):
    """Takes the steps; returns duration, loss and parts of each."""
    device, mode = torch.device(request["device"]), request["mode"]
    cos, sin = angles(request["model"], stage["context_length"], device)
    network = torch.compile(model) if mode == "compile" else model
    times, losses, parts = [], [], []
    for idx in range(request["warmup"] + request["steps"]):
        wait(device)
        started, forward, backward, loss_sum = time.perf_counter(), 0.0, 0.0, 0.0
        for ids in tokens.step(idx, stage):
            ids = ids.to(device)
            begun = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=mode == "bf16"):
                loss = network(ids, stage["patch_size"], cos, sin) / stage["num_micro_batches"]
            halfway = time.perf_counter()
            loss.backward()
            forward, backward = forward + halfway - begun, backward + time.perf_counter() - halfway
            loss_sum = loss_sum + loss.detach()
        begun = time.perf_counter()
        nn.utils.clip_grad_norm_(model.parameters(), request["optimizer"]["gradient_clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        wait(device)
        ended = time.perf_counter()
        losses.append(float(loss_sum))
        if idx >= request["warmup"]:
            times.append(ended - started)
            parts.append((forward, backward, ended - begun))
    medians = [statistics.median(part) for part in zip(*parts)]
    names = ("forward_seconds", "backward_seconds", "optimizer_seconds")
    return {"stage": stage["stage"], "step_seconds": times, "losses": losses, **dict(zip(names, medians))}


def flops_per_position(model, size, stage):
    """FLOPs per position: 6 per matrix weight, plus attention."""
    matrices = sum(weight.numel() for weight in model.parameters() if weight.dim() == 2)
    if not size["tie_word_embeddings"]:
        matrices -= model.model.embed_tokens.weight.numel()
    return 6.0 * matrices + 12.0 * size["num_hidden_layers"] * size["hidden_size"] * stage["context_length"]


def peak_bytes(device):
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return None


def main():
    request = json.load(sys.stdin)
    if request is None:
        print(json.dumps({"torch": torch.__version__, "python": sys.version.split()[0]}))
        return
    torch.manual_seed(0)
    torch.set_num_threads(request["threads"])
    device = torch.device(request["device"])
    if not hasattr(nn, "RMSNorm"):
        print("torch.nn.RMSNorm is missing: torch 2.4 or later is needed", file=sys.stderr)
        sys.exit(4)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("this torch finds no CUDA device", file=sys.stderr)
        sys.exit(4)
    if device.type == "cuda":
        # patchtui's f32 matrix products use TF32 there too.
        torch.set_float32_matmul_precision("high")
    size = request["model"]
    model = Llama(size, request["recompute"]).to(device)
    if request["weights"]:
        load_weights(model, request["weights"])
    tokens, optimizer, stages = Tokens(request, device), None, []
    for stage in request["stages"]:
        if optimizer is None or stage["resets_moments"]:
            optimizer = new_optimizer(model, request["optimizer"], stage["learning_rate"])
        for group in optimizer.param_groups:
            group["lr"] = stage["learning_rate"]
        times = time_stage(stage, request, model, optimizer, tokens)
        stages.append({**times, "flops_per_position": flops_per_position(model, size, stage)})
    if not all(math.isfinite(loss) for stage in stages for loss in stage["losses"]):
        sys.exit("a loss is not finite")
    report = {
        "threads": torch.get_num_threads(),
        "num_parameters": sum(weight.numel() for weight in model.parameters()),
        "peak_memory_bytes": peak_bytes(device),
        "stages": stages,
    }
    print(json.dumps(report))


main()
