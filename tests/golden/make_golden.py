"""Makes the golden files beside this script: what the Rust trainer must compute.

The model is transformers' LlamaForCausalLM, the optimizer torch's AdamW, the schedules transformers' own. Only the
method itself (`patch_nll`, arXiv 2407.12665) is written here. Start there, then at `main`.

Legend: B sequences, T tokens, P = T / K patches, K patch size, D hidden, I intermediate, V vocabulary.
"""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode
from transformers import LlamaConfig, LlamaForCausalLM

VOCAB_SIZE = 96

# Trained models start at 0.02. At that size attention is nearly uniform and every logit nearly zero, so that a wrong
# mask or rotation would hardly show. At 0.2 every part of the model matters.
WEIGHT_STD = 0.2


# --- The model -------------------------------------------------------------------------------------------------------


def tiny_llama(num_key_value_heads: int, tied: bool) -> LlamaForCausalLM:
    """Builds a two-layer Llama with reproducible weights: matrices N(0, 0.2), norm weights N(1, 0.2)."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=88,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=num_key_value_heads,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        use_cache=False,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            center = 1.0 if is_norm(parameter) else 0.0
            parameter.copy_(center + WEIGHT_STD * torch.randn(parameter.shape, generator=generator))
    return model


def is_norm(parameter: torch.Tensor) -> bool:
    """Norm weights are the only vectors of this model; everything else is a matrix."""
    return parameter.ndim == 1


def random_ids(*shape: int, seed: int) -> torch.Tensor:
    return torch.randint(VOCAB_SIZE, shape, generator=torch.Generator().manual_seed(seed))


# --- The method ------------------------------------------------------------------------------------------------------


def patch_nll(model: LlamaForCausalLM, input_ids: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Scores the K tokens of each next patch with the one distribution that is predicted for them.

    `input_ids`: [B, T], T a multiple of `patch_size`. Returns -log p of every scored target, [B, P-1, K]; their mean is
    the loss. The first patch is never a target. Source: arXiv 2407.12665, section 2.
    """
    patches = input_ids.unflatten(1, (-1, patch_size))  # [B, P, K]
    embeddings = model.model.embed_tokens(patches).mean(dim=2)  # [B, P, D]
    position_ids = torch.arange(patches.shape[1])[None]  # [1, P], one position per patch
    hidden = model.model(inputs_embeds=embeddings, position_ids=position_ids).last_hidden_state  # [B, P, D]
    log_probabilities = model.lm_head(hidden[:, :-1]).log_softmax(dim=-1)  # [B, P-1, V]
    return -log_probabilities.gather(dim=-1, index=patches[:, 1:])  # [B, P-1, K]


def assert_method(model: LlamaForCausalLM, input_ids: torch.Tensor) -> None:
    """Checks `patch_nll` against transformers' loss at K = 1, and against one cross entropy per token above."""
    reference = model(input_ids=input_ids, labels=input_ids)
    torch.testing.assert_close(patch_nll(model, input_ids, 1).mean(), reference.loss)

    patches = input_ids.unflatten(1, (-1, 4))
    embeddings = sum(model.model.embed_tokens(patches[:, :, k]) for k in range(4)) / 4
    logits = model(inputs_embeds=embeddings).logits[:, :-1].flatten(0, 1)
    per_token = [F.cross_entropy(logits, patches[:, 1:, k].flatten()) for k in range(4)]
    torch.testing.assert_close(patch_nll(model, input_ids, 4).mean(), sum(per_token) / 4)


# --- Forward pass and gradients --------------------------------------------------------------------------------------

CASES = {
    "mha_untied": dict(num_key_value_heads=4, tied=False),
    "mha_tied": dict(num_key_value_heads=4, tied=True),
    "gqa_untied": dict(num_key_value_heads=2, tied=False),
    "gqa_tied": dict(num_key_value_heads=2, tied=True),
}


@torch.no_grad()
def forward(case: str) -> dict[str, torch.Tensor]:
    """Plain language model: logits and next-token loss, all by transformers."""
    model = tiny_llama(**CASES[case])
    input_ids = random_ids(2, 24, seed=2)
    assert_method(model, input_ids)
    output = model(input_ids=input_ids, labels=input_ids)
    return prefixed("weights", weights(model)) | {
        "input_ids": input_ids,
        "logits": output.logits,
        "loss": output.loss.reshape(1),
    }


def patch_gradients(case: str) -> dict[str, torch.Tensor]:
    """Loss and gradient of every parameter for several patch sizes on the same tokens."""
    model = tiny_llama(**CASES[case])
    input_ids = random_ids(2, 32, seed=3)
    tensors = prefixed("weights", weights(model)) | {"input_ids": input_ids}
    for patch_size in (1, 2, 4, 8):
        model.zero_grad()
        loss = patch_nll(model, input_ids, patch_size).mean()
        loss.backward()
        gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        assert all(gradient.count_nonzero() > 0 for gradient in gradients.values())
        tensors |= prefixed(f"k{patch_size}.grad", gradients) | {
            f"k{patch_size}.loss": loss.reshape(1),
            f"k{patch_size}.grad_norm": torch.nn.utils.get_total_norm(gradients.values()).reshape(1),
        }
    return tensors


# --- Two-stage training ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Both stages have 8 positions per sequence and 128 tokens per step, like the paper's, in 2 micro-batches."""

    patch_size: int
    sequences: int  # per micro-batch
    tokens: int  # per sequence


STAGES = (Stage(patch_size=4, sequences=2, tokens=32), Stage(patch_size=1, sequences=8, tokens=8))
STEPS_PER_STAGE = 6
WARMUP_STEPS = 2  # in each stage
MICRO_BATCHES = 2
PEAK_LEARNING_RATE = 1e-2
GRADIENT_CLIP = 1.0
MOMENTS_AFTER_STEP = 9  # in the middle of the second stage


@dataclass
class Run:
    """What a run reports, one entry per step, and Adam's moments after step 9."""

    losses: list[float] = field(default_factory=list)  # before the update
    learning_rates: list[float] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)  # before clipping
    moments: dict[str, torch.Tensor] = field(default_factory=dict)


def training_batches() -> list[torch.Tensor]:
    """The input ids of each step, [micro-batches, sequences, tokens].

    Every sequence counts upwards from a random id in strides of 0 to 3: there is something to learn, and the sequences
    that repeat one id (stride 0) make gradients of very different sizes.
    """
    batches = []
    for stage in STAGES:
        for _ in range(STEPS_PER_STAGE):
            shape = (MICRO_BATCHES, stage.sequences, 1)
            generator = torch.Generator().manual_seed(100 + len(batches))
            start = torch.randint(VOCAB_SIZE, shape, generator=generator)
            stride = torch.randint(0, 4, shape, generator=generator)
            batches.append((start + stride * torch.arange(stage.tokens)) % VOCAB_SIZE)
    return batches


@torch.no_grad()
def untrained_model() -> LlamaForCausalLM:
    """The usual model with a flatter output, which brings the gradient norms to both sides of the clip."""
    model = tiny_llama(**CASES["gqa_untied"])
    model.model.norm.weight.mul_(0.3)
    return model


def train(model: LlamaForCausalLM, batches: list[torch.Tensor], keep_optimizer_state: bool) -> Run:
    """Trains `model` in place through all stages. Only the weights, or also Adam's state, survive the switch."""
    run = Run()
    steps = iter(batches)
    optimizer_state = defaultdict(dict)
    for stage in STAGES:
        optimizer = adamw(model)
        if keep_optimizer_state:
            optimizer.state = optimizer_state  # moments and step count, by parameter
        schedule = transformers.get_cosine_schedule_with_warmup(optimizer, WARMUP_STEPS, STEPS_PER_STAGE)
        for _ in range(STEPS_PER_STAGE):
            run.learning_rates.append(schedule.get_last_lr()[0])
            run.losses.append(accumulate_gradients(model, next(steps), stage.patch_size))
            run.grad_norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP).item())
            optimizer.step()
            schedule.step()
            if len(run.losses) == MOMENTS_AFTER_STEP:
                run.moments = moments(model, optimizer)
    return run


def accumulate_gradients(model: LlamaForCausalLM, micro_batches: torch.Tensor, patch_size: int) -> float:
    """Leaves in `.grad` the gradient of the mean over all scored targets of the step; returns that mean."""
    model.zero_grad()
    num_targets = micro_batches.numel() - patch_size * micro_batches[..., 0].numel()  # first patches are not scored
    step_loss = 0.0
    for input_ids in micro_batches:
        loss = patch_nll(model, input_ids, patch_size).sum() / num_targets
        loss.backward()
        step_loss += loss.item()
    return step_loss


def adamw(model: LlamaForCausalLM) -> torch.optim.AdamW:
    norms = [parameter for parameter in model.parameters() if is_norm(parameter)]
    matrices = [parameter for parameter in model.parameters() if not is_norm(parameter)]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LEARNING_RATE, betas=(0.9, 0.95), eps=1e-8)


def moments(model: LlamaForCausalLM, optimizer: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    return {
        f"{moment}.{name}": optimizer.state[parameter][moment].clone()
        for name, parameter in model.named_parameters()
        for moment in ("exp_avg", "exp_avg_sq")
    }


class InDouble(TorchFunctionMode):
    """Runs everything in float64, also what transformers pins to float32 (norm, softmax, rotation)."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        function = torch.Tensor.double if function is torch.Tensor.float else function
        args = [self.widen(value) for value in args]
        kwargs = {key: self.widen(value) for key, value in (kwargs or {}).items()}
        return function(*args, **kwargs)

    @staticmethod
    def widen(value):
        return torch.float64 if value is torch.float32 else value


def adamw_run(keep_optimizer_state: bool) -> dict[str, torch.Tensor]:
    """Twelve steps over the switch from K = 4 to K = 1, and the same losses in double precision."""
    model = untrained_model()
    tensors = prefixed("weights", weights(model))
    batches = training_batches()
    run = train(model, batches, keep_optimizer_state)
    clipped = [norm > GRADIENT_CLIP for norm in run.grad_norms]
    assert any(clipped) and not all(clipped)

    with InDouble():
        double_model = untrained_model().double()
        exact = train(double_model, batches, keep_optimizer_state)
    assert all(moment.dtype == torch.float64 for moment in exact.moments.values())

    report_run(run, exact, "kept" if keep_optimizer_state else "reset")
    pairs = zip(model.parameters(), double_model.parameters())
    print(f"final weights, largest |f32 - f64|: {max((a - b).abs().max().item() for a, b in pairs):.1e}")
    tensors |= {f"input_ids.step{step:02}": input_ids for step, input_ids in enumerate(batches, start=1)}
    return tensors | run.moments | prefixed("final", weights(model)) | {
        "losses": torch.tensor(run.losses),
        "losses_f64": torch.tensor(exact.losses, dtype=torch.float64),
        "learning_rates": torch.tensor(run.learning_rates),
        "grad_norms": torch.tensor(run.grad_norms),
    }


def report_run(run: Run, exact: Run, policy: str) -> None:
    print(f"AdamW run, optimizer state {policy} at the switch")
    print("step  learning rate       loss  f32 - f64  grad norm")
    rows = zip(run.learning_rates, run.losses, exact.losses, run.grad_norms)
    for step, (learning_rate, loss, exact_loss, norm) in enumerate(rows, start=1):
        clipped = "clipped" if norm > GRADIENT_CLIP else ""
        print(f"{step:4}  {learning_rate:13.7f}  {loss:9.6f}  {loss - exact_loss:9.1e}  {norm:9.4f}  {clipped}")


# --- Activations, schedules, generation ------------------------------------------------------------------------------

ACTIVATION_THRESHOLD = 0.5


@torch.no_grad()
def activations() -> dict[str, torch.Tensor]:
    """Per layer: share (percent) of |x| above the threshold and mean |x|, over all sequences, positions and units."""
    model = tiny_llama(**CASES["gqa_untied"])
    input_ids = random_ids(2, 32, seed=4)
    seen = record_feed_forward(model)
    tensors = prefixed("weights", weights(model)) | {"input_ids": input_ids}
    for patch_size in (1, 4):
        seen.clear()
        patch_nll(model, input_ids, patch_size)
        for tensor, layers in seen.items():
            magnitudes = torch.stack(layers).abs()  # [layers, B, P, D] or [layers, B, P, I]
            # A value at the threshold would count differently after any rounding.
            assert (magnitudes - ACTIVATION_THRESHOLD).abs().min() > 1e-5
            is_active = (magnitudes > ACTIVATION_THRESHOLD).float()
            tensors[f"k{patch_size}.{tensor}.rate"] = 100 * is_active.mean(dim=(1, 2, 3))
            tensors[f"k{patch_size}.{tensor}.mean_abs"] = magnitudes.mean(dim=(1, 2, 3))
    return tensors


def record_feed_forward(model: LlamaForCausalLM) -> dict[str, list[torch.Tensor]]:
    """Returns lists that each forward pass extends, one tensor per layer: what goes into down_proj, what comes out."""
    seen = defaultdict(list)

    def record(_module, inputs, output):
        seen["intermediate"].append(inputs[0])  # silu(gate) * up
        seen["ffn_output"].append(output)  # before it is added to the residual stream

    for layer in model.model.layers:
        layer.mlp.down_proj.register_forward_hook(record)
    return seen


def schedules() -> list[dict]:
    """Learning rate of each of 50 updates for every schedule, with and without warm-up."""
    peak, total, minimum = 3e-4, 50, 3e-5
    makers = [
        ("cosine", transformers.get_cosine_schedule_with_warmup, {}),
        ("linear", transformers.get_linear_schedule_with_warmup, {}),
        ("cosine", transformers.get_cosine_with_min_lr_schedule_with_warmup, {"min_lr": minimum}),
    ]
    curves = []
    for kind, maker, extra in makers:
        for warmup in (7, 0):
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
            schedule = maker(optimizer, num_warmup_steps=warmup, num_training_steps=total, **extra)
            learning_rates = []
            for _ in range(total):
                learning_rates.append(schedule.get_last_lr()[0])
                optimizer.step()
                schedule.step()
            curves.append({
                "kind": kind,
                "learning_rate": peak,
                "min_learning_rate": extra.get("min_lr", 0.0),
                "warmup_steps": warmup,
                "total_steps": total,
                "learning_rates": learning_rates,
            })
    return curves


@torch.no_grad()
def generation() -> dict[str, torch.Tensor]:
    """Twelve greedy tokens. The head is scaled so that rounding cannot change the best token."""
    model = tiny_llama(**CASES["gqa_untied"])
    model.lm_head.weight.mul_(4.0)
    input_ids = random_ids(1, 6, seed=24)
    output = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=12,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = torch.cat(output.logits)  # [12, V]
    best, second = logits.topk(2).values.unbind(dim=-1)
    assert (best - second).min() > 1e-3
    generated_ids = output.sequences[:, input_ids.shape[1] :]
    assert len(generated_ids.unique()) == 12, "a text that repeats itself proves little"
    print(f"generation: {generated_ids[0].tolist()}, smallest gap {(best - second).min():.4f}")
    return prefixed("weights", weights(model)) | {
        "input_ids": input_ids,
        "generated_ids": generated_ids,
        "logits": logits,
    }


# --- Files -----------------------------------------------------------------------------------------------------------


def weights(model: LlamaForCausalLM) -> dict[str, torch.Tensor]:
    """Names as in transformers' state dict. A tied head appears once, as `model.embed_tokens.weight`."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def save(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Token ids are stored as int32; the rest keeps its type."""
    narrowed = {
        name: (tensor.int() if tensor.dtype == torch.int64 else tensor).detach().contiguous()
        for name, tensor in tensors.items()
    }
    save_file(narrowed, path)
    print(f"{path.name}: {len(narrowed)} tensors, {path.stat().st_size:,} bytes")


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    print(f"torch {torch.__version__}, transformers {transformers.__version__}")

    for case in CASES:
        save(folder / f"forward_{case}.safetensors", forward(case))
    save(folder / "patch_gradients.safetensors", patch_gradients("gqa_untied"))
    save(folder / "patch_gradients_tied.safetensors", patch_gradients("gqa_tied"))
    save(folder / "adamw_run.safetensors", adamw_run(keep_optimizer_state=False))
    save(folder / "adamw_run_keep.safetensors", adamw_run(keep_optimizer_state=True))
    save(folder / "activations.safetensors", activations())
    save(folder / "generate.safetensors", generation())
    (folder / "schedules.json").write_text(json.dumps(schedules(), indent=1) + "\n")


if __name__ == "__main__":
    main()
