"""Makes tasks.json: what lm-eval 0.4.13 does where a mistake would not be seen in a score.

    pip install lm_eval==0.4.13 torch==2.15.0 transformers==5.23.0      # Python 3.11
    python tests/golden/make_task_golden.py DATA [OTHER_FOLDER]

DATA is the folder of task files that the tests read as PATCHTUI_TEST_DATA; of it, only scores are written. Takes two minutes.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", HF_DATASETS_CACHE=tempfile.mkdtemp())

import lm_eval
import torch
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[2]
LM_EVAL_TASKS = Path(lm_eval.__file__).parent / "tasks"

MMLU_DEV = [
    ["  What is 1 + 1?\n", "0", "1", "2", "3", "C"],
    ["Which is a colour,\n\"red\" or 7?", " red ", "7", "both", "neither", "A"],
    ["Second to last?", "a", "b", "c", "d", "D"],
]
MMLU_TEST = [
    ["\x1cWhat, said he, is \u00e9?\u3000", "a letter", "a number", "nothing", "A. something", "A"],
    ["One more line\n\nand another ", "w", "x", "y", " z", "B"],
]
PAIRS = [
    ("Tom went to the park.", " He saw a dog."),
    ("Tom went to the park. ", "He saw a dog."),
    ("ends with spaces \u3000\x1f\n", " then goes on"),
    ("", " nothing before"),
    ("", "<s> begins itself"),
    ("<s>spells it out", " and on"),
    ("caf\u00e9 \U0001f980", " \u4e2d"),
    ("a", " b"),
]
TEXTS = ["", "a", "Tom and Mia went to the park, and then they went home again because it was late.", "<s> first"]
CAPITALS = ["", "the MAN in NYC", " Lead", "\u01c6 X", "\u03a3\u03a3 \u0391\u03a3 \u0391\u03a3. \u0391\u03a3\u0391", "\u00dfA", "\ufb03X", "\u0587X", "x\u0130I", "\u10d0\u1c90",
            "\u1f80\u1f88", "\u1fb7", "1ABC", "\u2160\u2170", "\u00aaB", "\u0345\u0391", "A\u0345\u03a3", "A\u00ad\u03a3", "A\u2019\u03a3\u2019"]


def model(add_bos: bool, max_length: int) -> tuple[HFLM, list]:
    """A network that is asked with the built-in demo vocabulary, and what it is asked."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(ROOT / "assets/demo-tokenizer.json"), bos_token="<s>", eos_token="</s>", pad_token="</s>")
    sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, max_position_embeddings=max_length)
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes))
    lm = HFLM(pretrained=network, tokenizer=tokenizer, add_bos_token=add_bos, device="cpu", batch_size=1)
    seen, call = [], lm._model_call
    lm._model_call = lambda inps, **kwargs: (seen.append(inps.tolist()), call(inps, **kwargs))[1]
    return lm, seen


class Request:
    def __init__(self, *args):
        self.args = self.arguments = args


def tokens() -> dict:
    pairs, rolling, inputs = [], [], []
    for add_bos in (False, True):
        lm, _ = model(add_bos, 64)
        for context, continuation in PAIRS:
            # What `loglikelihood` does before it asks the model.
            caught = []
            lm._loglikelihood_tokens = lambda requests, **_: caught.extend(requests) or [(0.0, True)] * len(requests)
            lm.loglikelihood([Request(context, continuation)], disable_tqdm=True)
            [(_, context_enc, continuation_enc)] = caught
            pairs.append(dict(add_bos=add_bos, context=context, continuation=continuation, context_enc=context_enc, continuation_enc=continuation_enc))
        for text in TEXTS:
            for max_length in (3, 16):
                windows = get_rolling_token_windows(lm.tok_encode(text), lm.prefix_token_id, max_length, 1)
                rolling.append(dict(add_bos=add_bos, text=text, max_length=max_length, windows=[list(make_disjoint_window(window)) for window in windows]))
        # A context that is too long for the model.
        for max_length in (8, 16):
            lm, seen = model(add_bos, max_length)
            context, continuation = "Tom and Mia went to the park, and then they went home again because it was", " late."
            lm.loglikelihood([Request(context, continuation)], disable_tqdm=True)
            inputs.append(dict(add_bos=add_bos, max_length=max_length, context=context, continuation=continuation, input=seen[0][0]))
    return dict(pairs=pairs, rolling=rolling, inputs=inputs)


class Pseudo(LM):
    """Scores strings by an integer hash, so that every result is exact."""

    def __init__(self):
        super().__init__()
        self.contexts = []

    def loglikelihood(self, requests, disable_tqdm=False):
        self.contexts += [request.args for request in requests]

        def score(context, continuation):
            h = (7 * sum(map(ord, context)) + sum((i + 1) * ord(c) for i, c in enumerate(continuation))) % 1009
            return -h / 8 - 0.25 * len(continuation)

        return [(score(*request.args), False) for request in requests]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        return [-0.7 * len(text.encode()) for (text,) in (request.args for request in requests)]

    def generate_until(self, requests, disable_tqdm=False):
        raise NotImplementedError


def evaluate(folder: Path, names: list[str], **options) -> tuple[dict, Pseudo]:
    scorer = Pseudo()
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    results = lm_eval.simple_evaluate(model=scorer, tasks=names, task_manager=manager, bootstrap_iters=100, log_samples=False, **options)
    return results, scorer


def write_yaml(folder: Path, name: str, **config):
    # JSON is YAML; a function needs its tag.
    text = json.dumps(dict(task=name, **config), indent=1)
    for key in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        text = text.replace(f'"{key}": "!function ', f'"{key}": !function "')
    (folder / f"{name}.yaml").write_text(text)


def choice(folder: Path, name: str, path, split: str, metrics=("acc", "acc_norm"), **config):
    metric_list = [dict(metric=metric, aggregation="mean", higher_is_better=True) for metric in metrics]
    files = {split: str(path)} if not isinstance(path, dict) else path
    write_yaml(folder, name, dataset_path="json", dataset_kwargs=dict(data_files=files), output_type="multiple_choice", metric_list=metric_list,
               **{f"{split}_split": split}, **config)


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().split("\n") if line.strip()]


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


MMLU = dict(
    doc_to_text="{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:",
    doc_to_choice=["A", "B", "C", "D"], doc_to_target="answer", metrics=("acc",), fewshot_split="dev", fewshot_config=dict(sampler="first_n"))


def mmlu_rows(table) -> list[dict]:
    return [dict(question=row[0], choices=row[1:5], answer="ABCD".index(row[5])) for row in table]


def examples() -> dict:
    """Prompts of MMLU with worked examples."""
    found = {}
    for count in (0, 1, 3):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            files = dict(test=str(write_rows(folder / "test.jsonl", mmlu_rows(MMLU_TEST))), dev=str(write_rows(folder / "dev.jsonl", mmlu_rows(MMLU_DEV))))
            description = "The following are multiple choice questions (with answers) about high school physics.\n\n"
            choice(folder, "few", files, "test", description=description, **MMLU)
            _, scorer = evaluate(folder, ["few"], num_fewshot=count)
            found[str(count)] = [list(pair) for pair in scorer.contexts]
    return dict(subject="high_school_physics", dev=MMLU_DEV, test=MMLU_TEST, requests=found)


def scores(data: Path, limit=None) -> dict:
    """Results of all choice tasks, and of the groups of MMLU."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        arc = dict(doc_to_text="Question: {{question}}\nAnswer:", doc_to_target="gold", doc_to_choice="{{choices}}")
        for name, file in (("arc_easy", "Easy"), ("arc_challenge", "Challenge")):
            choice(folder, name, data / f"arc/DERIVED_ARC-{file}-test.jsonl", "test", **arc)
        labels = (data / "piqa/valid-labels.lst").read_text().split()
        piqa = [dict(row, label=int(label)) for row, label in zip(rows_of(data / "piqa/valid.jsonl"), labels, strict=True)]
        choice(folder, "piqa", write_rows(folder / "piqa.jsonl", piqa), "validation", doc_to_text="Question: {{goal}}\nAnswer:", doc_to_target="label",
               doc_to_choice="{{[sol1, sol2]}}")
        choice(folder, "hellaswag", data / "hellaswag/DERIVED_hellaswag_val_1000_lmeval_preprocessed.jsonl", "validation", doc_to_text="{{query}}",
               doc_to_target="gold", doc_to_choice="choices")
        shutil.copy(LM_EVAL_TASKS / "winogrande/preprocess_winogrande.py", folder)
        gap = {key: f"!function preprocess_winogrande.{key}" for key in ("doc_to_text", "doc_to_target", "doc_to_choice")}
        choice(folder, "winogrande", data / "winogrande/dev.jsonl", "validation", metrics=("acc",), **gap)
        groups: dict[str, list[str]] = {}
        rows = rows_of(data / "mmlu/DERIVED_mmlu_test.jsonl")
        dev = rows_of(data / "mmlu/DERIVED_mmlu_dev.jsonl")
        for path in sorted((LM_EVAL_TASKS / "mmlu/default").glob("mmlu_*.yaml")):
            fields = dict(line.split(": ", 1) for line in path.read_text().splitlines() if line.startswith('"'))
            subject, tag = json.loads(fields['"dataset_name"']), json.loads(fields['"tag"'])
            groups.setdefault(tag.removesuffix("_tasks"), []).append(f"mmlu_{subject}")
            files = {split: str(write_rows(folder / f"{subject}_{split}.jsonl", [row for row in part if row["subject"] == subject]))
                     for split, part in (("test", rows), ("dev", dev))}
            about = subject.replace("_", " ")
            choice(folder, f"mmlu_{subject}", files, "test", description=f"The following are multiple choice questions (with answers) about {about}.\n\n",
                   task_alias=subject, **MMLU)
        groups["mmlu"] = list(groups)
        for name, parts in groups.items():
            config = dict(group=name, task=parts, aggregate_metric_list=[dict(metric="acc", weight_by_size=True)])
            (folder / f"_{name}.yaml").write_text(json.dumps(config))
        names = ["hellaswag", "piqa", "winogrande", "arc_easy", "arc_challenge", "mmlu"]
        results, _ = evaluate(folder, names, limit=limit)
        keep = lambda entry: {key: float(value) for key, value in entry.items() if key == "sample_len" or key.startswith("acc")}
        return {name: keep(entry) for name, entry in results["results"].items()}


def main():
    data = Path(sys.argv[1])
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent
    torch.manual_seed(0)
    golden = dict(
        lm_eval=lm_eval.__version__,
        tokens=tokens(),
        mmlu=examples(),
        capitals=[[text, text.capitalize()] for text in CAPITALS],
        spaces=[ord(c) for c in map(chr, range(0x110000)) if c.isspace()],
        scores=scores(data),
        scores_of_first_7=scores(data, limit=7),
    )
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in golden.items())
    (folder / "tasks.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
