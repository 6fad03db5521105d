"""Loads a Hugging Face directory with transformers and says what it computes, as one JSON document on the standard output.

    python transformers_run.py logits DIR         stdin: {"ids": [..], "max_new_tokens": N, "text": [..]}
    python transformers_run.py step DIR           stdin: {"ids": [[..]], "patch_size": K}

`logits`: the logits after each id, the greedy continuation, and the ids of each text with and without special tokens.
`step`: the loss of one batch of sequences and the weights' sums after one step of AdamW (learning rate 1e-3, clip 1).
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent.parent / "golden"))
from make_golden import is_norm, patch_nll


def load(path: str):
    return AutoModelForCausalLM.from_pretrained(path, torch_dtype=torch.float32, attn_implementation="eager")


@torch.no_grad()
def logits(path: str, request: dict) -> dict:
    model, tokenizer = load(path), AutoTokenizer.from_pretrained(path)
    ids = torch.tensor([request["ids"]])
    generated = model.generate(ids, max_new_tokens=request["max_new_tokens"], do_sample=False)
    texts = request["text"]
    return {
        "logits": model(input_ids=ids).logits[0].flatten().tolist(),
        "generated": generated[0, ids.shape[1] :].tolist(),
        "text_ids": [tokenizer.encode(text, add_special_tokens=False) for text in texts],
        "text_ids_special": [tokenizer.encode(text) for text in texts],
        "decoded": [tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) for text in texts],
    }


def step(path: str, request: dict) -> dict:
    model = load(path)
    norms = [parameter for parameter in model.parameters() if is_norm(parameter)]
    matrices = [parameter for parameter in model.parameters() if not is_norm(parameter)]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8)
    loss = patch_nll(model, torch.tensor(request["ids"]), request["patch_size"]).mean()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    weights = {name: parameter.detach().flatten().tolist() for name, parameter in model.named_parameters()}
    return {"loss": loss.item(), "norm": norm.item(), "weights": weights}


if __name__ == "__main__":
    found = {"logits": logits, "step": step}[sys.argv[1]](sys.argv[2], json.load(sys.stdin))
    print(json.dumps(found | {"transformers": transformers.__version__, "torch": torch.__version__}))
