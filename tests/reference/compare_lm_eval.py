"""Trains a small model with patchtui, exports it, and compares `patchtui eval` on the run with lm-eval on the exported directory.

    python compare_lm_eval.py PATCHTUI DATA_DIR WORK_DIR [--limit N] [--small] [--tasks a,b] [--batch-size N]

Ends with 1 unless on every task the log-likelihoods agree within 1e-3 relative, perplexities within 1e-4 relative, and the predictions
are equal on all documents but those whose two best scores are closer than 1e-4 relative, which are listed. Writes WORK_DIR/report.md.
Both programs run one after the other on the same cores, in f32. The seconds of lm-eval are those inside of its model calls, tokenizing included;
those of patchtui are the whole command: start, loading, reading, tokenizing, computing, writing.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

LIKELIHOOD_TOLERANCE = 1e-3
PERPLEXITY_TOLERANCE = 1e-4
NEAR = 1e-4
TASKS = "hellaswag,piqa,winogrande,arc_easy,arc_challenge,mmlu,wikitext,wikitext-paper"

MODEL = {"model.hidden_size": 256, "model.intermediate_size": 688, "model.num_hidden_layers": 6, "model.num_attention_heads": 4}
SMALL = {"model.hidden_size": 64, "model.intermediate_size": 96, "model.num_hidden_layers": 2, "model.num_attention_heads": 4}


def train(patchtui: str, data: Path, work: Path, small: bool) -> None:
    """A run `model` with the tokenizer of LLaMA-2 on Shakespeare, and its export `model-hf`."""
    sets = (SMALL if small else MODEL) | {
        "model.num_key_value_heads": 2,
        "model.max_position_embeddings": 256 if small else 1024,
        "training.context_length": 128 if small else 512,
        "data.tokenizer": json.dumps(str(data / "llama2_tokenizer/tokenizer.json")),
        "data.files": json.dumps([str(data / "tinyshakespeare/input.txt")]),
        "data.generator": "default",
        "training.tokens": "80k" if small else "400k",
        "training.tokens_per_step": 4096,
        "optimizer.learning_rate": 3e-3,
    }
    command = [patchtui, "--runs-dir", "runs", "run", "demo", "--name", "model", "--no-tui", "--resume"]
    for key, value in sets.items():
        command += ["--set", f"{key}={value}"]
    environment = os.environ | {"XDG_STATE_HOME": str(work / "state"), "PATCHTUI_SOCKET_DIR": str(work / "sockets")}
    subprocess.run(command, cwd=work, check=True, stdout=subprocess.DEVNULL, env=environment)
    if not (work / "model-hf").exists():
        subprocess.run([patchtui, "export", "runs/model", "--to", "model-hf"], cwd=work, check=True, env=environment)


def ours(patchtui: str, data: Path, work: Path, task: str, limit: int | None) -> dict:
    """What `patchtui eval` says about each document of each task, and how long all of it took."""
    command = [patchtui, "eval", "runs/model", "--tasks", task, "--task-data", str(data), "--json", "--output", "ours.jsonl"]
    if limit:
        command += ["--limit", str(limit)]
    started = time.perf_counter()
    results = json.loads(subprocess.run(command, cwd=work, check=True, stdout=subprocess.PIPE).stdout)["results"]
    seconds = time.perf_counter() - started
    documents: dict[str, list[dict]] = {}
    for line in (work / "ours.jsonl").read_text().split("\n")[:-1]:
        sample = json.loads(line)
        values = [request["log_likelihood"] for request in sample["requests"]] if "requests" in sample else [sample["log_likelihood"]]
        documents.setdefault(sample["task"], []).append(sample | {"log_likelihoods": values})
    metrics = {name: {key.removesuffix(",none"): value for key, value in entry.items() if key.endswith(",none")} for name, entry in results.items()}
    return {"seconds": seconds, "documents": documents, "metrics": metrics}


def theirs(data: Path, work: Path, task: str, limit: int | None, batch_size: int) -> dict:
    out = work / f"{task}.json"
    command = [sys.executable, str(Path(__file__).parent / "lm_eval_run.py"), str(work / "model-hf"), str(data), str(out), "--tasks", task]
    command += ["--batch-size", str(batch_size)] + (["--limit", str(limit)] if limit else [])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return json.loads(out.read_text())


def relative(found: float, expected: float) -> float:
    return abs(found - expected) / max(abs(expected), 1e-9)


def compare(name: str, mine: dict, other: dict) -> tuple[dict, list[str]]:
    """Numbers for the report, and what is wrong."""
    problems, near, worst = [], [], 0.0
    if len(mine["documents"]) != len(other["documents"]):
        problems.append(f"{name}: {len(mine['documents'])} documents instead of {len(other['documents'])}")
    for number, (a, b) in enumerate(zip(mine["documents"], other["documents"])):
        if len(a["log_likelihoods"]) != len(b["log_likelihoods"]):
            problems.append(f"{name} {number}: {len(a['log_likelihoods'])} requests instead of {len(b['log_likelihoods'])}")
            continue
        worst = max([worst, *map(relative, a["log_likelihoods"], b["log_likelihoods"])])
        for metric in ("acc", "acc_norm"):
            if b.get(metric) is None or a.get(metric) == b[metric]:
                continue
            best = sorted(b["log_likelihoods"], reverse=True)
            lengths = [len(request["continuation"].removeprefix(" ")) for request in a["requests"]]
            scores = best if metric == "acc" else sorted((value / length for value, length in zip(b["log_likelihoods"], lengths)), reverse=True)
            if relative(scores[1], scores[0]) < NEAR:
                near.append(f"{name} {number} ({metric})")
            else:
                problems.append(f"{name} {number}: {metric} {a[metric]} instead of {b[metric]}")
    if worst > LIKELIHOOD_TOLERANCE:
        problems.append(f"{name}: a log-likelihood differs by {worst:.2e} relative")
    for metric, value in other["metrics"].items():
        if "perplexity" in metric and "stderr" not in metric and relative(mine["metrics"][metric], value) > PERPLEXITY_TOLERANCE:
            problems.append(f"{name}: {metric} {mine['metrics'][metric]} instead of {value}")
    return {"worst": worst, "near": near, "documents": len(other["documents"])}, problems


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("patchtui")
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    patchtui, data, work = str(Path(arguments.patchtui).resolve()), arguments.data.resolve(), arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    train(patchtui, data, work, arguments.small)
    lines = ["| task | documents | worst log-likelihood, relative | metrics (patchtui; lm-eval) | near ties | lm-eval s | patchtui s | ratio |", "|" + "---|" * 8]
    all_problems, all_near = [], []
    for task in arguments.tasks.split(","):
        other = theirs(data, work, task, arguments.limit, arguments.batch_size)
        mine = ours(patchtui, data, work, task, arguments.limit)
        worst, near, documents, metrics = 0.0, [], 0, []
        # The metrics of a group of tasks are compared through its members.
        for name, expected in other["tasks"].items():
            found, problems = compare(name, {"documents": mine["documents"][name], "metrics": mine["metrics"][name]}, expected)
            all_problems += problems
            worst, documents = max(worst, found["worst"]), documents + found["documents"]
            near += found["near"]
            if len(other["tasks"]) == 1:
                pairs = [(metric, value) for metric, value in expected["metrics"].items() if "stderr" not in metric and isinstance(value, float)]
                metrics = [f"{metric} {mine['metrics'][name][metric]:.6g}; {value:.6g}" for metric, value in pairs]
        seconds = sum(task["seconds"] for task in other["tasks"].values())
        row = [task, documents, f"{worst:.1e}", ", ".join(metrics) or "each subject", len(near), f"{seconds:.1f}", f"{mine['seconds']:.1f}"]
        lines.append("| " + " | ".join(map(str, row)) + f" | {seconds / mine['seconds']:.2f} |")
        print(lines[-1], flush=True)
        all_near += near
    report = "\n".join(lines) + f"\n\nNear ties that were decided otherwise: {', '.join(all_near) or 'none'}\n"
    (work / "report.md").write_text(report)
    print(report)
    for problem in all_problems:
        print("DIFFERS", problem)
    return 1 if all_problems else 0


if __name__ == "__main__":
    sys.exit(main())
