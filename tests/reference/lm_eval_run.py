"""Evaluates a Hugging Face directory with lm-eval on local task files, and writes what it found for each document.

    python lm_eval_run.py MODEL_DIR DATA_DIR OUT.json [--tasks a,b] [--limit N] [--batch-size N] [--threads N]

The tasks are lm-eval's own definitions, with the data set replaced by local files. DATA_DIR is laid out as `tests/reference/README.md`
says. OUT.json: {"tasks": {NAME: {"metrics": {..}, "seconds": S, "documents": [{"log_likelihoods": [..], "correct": ..}, ..]}}}.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")

import lm_eval
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks.wikitext import preprocess_wikitext
from lm_eval.tasks.winogrande import preprocess_winogrande

ACC = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
ACC_NORM = {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True}
QUESTION = "Question: {{question}}\nAnswer:"


def rows(path: Path) -> list[dict]:
    # `splitlines` would also split at U+2028, which occurs inside of documents.
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def local(name: str, records: list[dict], folder: Path) -> dict:
    """The part of a task's definition that says where its documents are."""
    path = folder / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}}, "test_split": "test"}


def choice(name: str, records: list[dict], folder: Path, text, target, choices, metrics=(ACC, ACC_NORM), **more) -> dict:
    definition = {"output_type": "multiple_choice", "doc_to_text": text, "doc_to_target": target, "doc_to_choice": choices}
    return local(name, records, folder) | definition | {"metric_list": list(metrics)} | more


def hellaswag(data: Path, folder: Path) -> list[dict]:
    documents = rows(data / "hellaswag/DERIVED_hellaswag_val_1000_lmeval_preprocessed.jsonl")
    return [choice("hellaswag", documents, folder, "{{query}}", "{{gold}}", "choices")]


def piqa(data: Path, folder: Path) -> list[dict]:
    labels = (data / "piqa/valid-labels.lst").read_text().split()
    documents = [row | {"label": int(label)} for row, label in zip(rows(data / "piqa/valid.jsonl"), labels, strict=True)]
    return [choice("piqa", documents, folder, "Question: {{goal}}\nAnswer:", "label", "{{[sol1, sol2]}}")]


def winogrande(data: Path, folder: Path) -> list[dict]:
    documents = rows(data / "winogrande/dev.jsonl")
    functions = (preprocess_winogrande.doc_to_text, preprocess_winogrande.doc_to_target, preprocess_winogrande.doc_to_choice)
    return [choice("winogrande", documents, folder, *functions, metrics=(ACC,))]


def arc(name: str, part: str, data: Path, folder: Path) -> list[dict]:
    documents = rows(data / f"arc/DERIVED_ARC-{part}-test.jsonl")
    return [choice(name, documents, folder, QUESTION, "gold", "choices")]


def mmlu(data: Path, folder: Path) -> list[dict]:
    by_subject: dict[str, list[dict]] = {}
    for row in rows(data / "mmlu/DERIVED_mmlu_test.jsonl"):
        by_subject.setdefault(row["subject"], []).append(row)
    text = "{{question.strip()}}\nA. {{choices[0]}}\nB. {{choices[1]}}\nC. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:"
    head = "The following are multiple choice questions (with answers) about {}.\n\n"
    letters = ["A", "B", "C", "D"]
    return [
        choice(f"mmlu_{subject}", documents, folder, text, "answer", letters, (ACC,), description=head.format(subject.replace("_", " ")))
        for subject, documents in by_subject.items()
    ]


def wikitext(data: Path, folder: Path) -> list[dict]:
    documents = [{"page": row["text"]} for row in rows(data / "wikitext103-test/wikitext_document_level-test.json")]
    definition = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": preprocess_wikitext.wikitext_detokenizer,
        "process_results": preprocess_wikitext.process_results,
        "metric_list": [{"metric": metric} for metric in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
    }
    return [local("wikitext", documents, folder) | definition]


TASKS = {
    "hellaswag": hellaswag,
    "piqa": piqa,
    "winogrande": winogrande,
    "arc_easy": lambda data, folder: arc("arc_easy", "Easy", data, folder),
    "arc_challenge": lambda data, folder: arc("arc_challenge", "Challenge", data, folder),
    "mmlu": mmlu,
    "wikitext": wikitext,
}


@torch.no_grad()
def wikitext_paper(model: HFLM, data: Path, limit: int | None) -> dict:
    """The paper's perplexity: PatchTrain's evaluation, in f32."""
    started = time.perf_counter()
    tokenizer, network = model.tokenizer, model.model
    pages = [row["text"] for row in rows(data / "wikitext103-test/wikitext_document_level-test.json")[:limit]]
    # BOS before every page; written out, since transformers 5 takes `add_bos_token=False` for all calls of the tokenizer.
    ids = [id for page in pages for id in [tokenizer.bos_token_id, *tokenizer(page, add_special_tokens=False).input_ids]]
    block = min(2048, network.config.max_position_embeddings)
    blocks = torch.tensor(ids[: len(ids) // block * block]).unflatten(0, (-1, block))
    losses = [network(input_ids=block[None], labels=block[None]).loss.item() for block in blocks]
    seconds = time.perf_counter() - started
    documents = [{"log_likelihoods": [-loss * (block - 1)]} for loss in losses]
    return {"metrics": {"perplexity": math.exp(sum(losses) / len(losses))}, "seconds": seconds, "documents": documents}


def document(sample: dict) -> dict:
    """What lm-eval says about a document, in the order of its choices."""
    responses = sample["filtered_resps"]
    values = [response[0] if isinstance(response, (tuple, list)) else response for response in responses]
    return {"doc_id": sample["doc_id"], "log_likelihoods": [float(value) for value in values], "acc": sample.get("acc"), "acc_norm": sample.get("acc_norm")}


class Timed(HFLM):
    """lm-eval's model, with the seconds that it computed: reading data sets and building prompts do not count."""

    seconds = 0.0

    def loglikelihood(self, *arguments, **keywords):
        started = time.perf_counter()
        found = super().loglikelihood(*arguments, **keywords)
        self.seconds += time.perf_counter() - started
        return found

    def loglikelihood_rolling(self, *arguments, **keywords):
        started = time.perf_counter()
        found = super().loglikelihood_rolling(*arguments, **keywords)
        self.seconds += time.perf_counter() - started
        return found


def evaluate(model: Timed, definitions: list[dict], limit: int | None) -> dict:
    model.seconds = 0.0
    found = lm_eval.simple_evaluate(model=model, tasks=definitions, num_fewshot=0, limit=limit, log_samples=True, bootstrap_iters=0, verbosity="ERROR")
    seconds = model.seconds
    results = {}
    for name, metrics in found["results"].items():
        documents = sorted((document(sample) for sample in found["samples"][name]), key=lambda one: one["doc_id"])
        results[name] = {"metrics": {key.removesuffix(",none"): value for key, value in metrics.items() if key.endswith(",none")}, "documents": documents}
    for result in results.values():
        result["seconds"] = seconds / len(results)
    return results


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--tasks", default=",".join([*TASKS, "wikitext-paper"]))
    parser.add_argument("--limit", type=int)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    folder = arguments.out.with_suffix(".data")
    folder.mkdir(exist_ok=True)
    model = Timed(pretrained=arguments.model, dtype="float32", device="cpu", batch_size=arguments.batch_size, add_bos_token=False)
    results = {}
    for task in arguments.tasks.split(","):
        if task == "wikitext-paper":
            results[task] = wikitext_paper(model, arguments.data, arguments.limit)
        else:
            results |= evaluate(model, TASKS[task](arguments.data, folder), arguments.limit)
    versions = {"lm_eval": lm_eval.__version__ if hasattr(lm_eval, "__version__") else "?", "torch": torch.__version__, "threads": torch.get_num_threads()}
    arguments.out.write_text(json.dumps({"tasks": results, "batch_size": arguments.batch_size} | versions))


if __name__ == "__main__":
    main()
