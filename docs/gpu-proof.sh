#!/usr/bin/env bash
# Tests whether patchtui trains on a GPU, in one call of at most ten minutes. The machine needs only a driver.
#
#   docs/gpu-proof.sh PATCHTUI [--device cuda] [--precision bf16] [--out FOLDER] [--small] [--seconds 600] [--micro-batch N] [--steps N]
#
#   PATCHTUI            the binary, built on any machine (docs/release.sh)
#   --device NAME       cuda, cuda:N, wgpu, wgpu:N or cpu [default: cuda]
#   --precision FORMAT  precision of the speed measurement [default: bf16 on CUDA, else f32]
#   --out FOLDER        folder for runs and results [default: gpu-proof]
#   --small             tiny networks instead of 370M: for CPUs, software GPUs and the test of this script
#   --seconds N         total time limit; parts that do not fit are skipped, and the result says so [default: 600]
#   --micro-batch N     sequences per forward pass in the speed measurement [default: 8, or 4 with --small]
#   --steps N           steps of the speed measurement, half of them per stage; at least 8 [default: 16]
#
# Needs bash, coreutils, awk and the binary; uses Python with PyTorch, and nvidia-smi, if present. Writes result.json and
# result.md. Exits with 0 if nothing failed, even if parts were skipped, otherwise with 1.
set -uo pipefail

device=cuda precision="" out=gpu-proof small="" seconds=600 micro_batch="" binary="" steps=16
usage() { sed -n '2,/^# Writes/p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
        --device) device="$2"; shift 2 ;;
        --precision) precision="$2"; shift 2 ;;
        --out) out="$2"; shift 2 ;;
        --steps) steps="$2"; shift 2 ;;
        --small) small=yes; shift ;;
        --seconds) seconds="$2"; shift 2 ;;
        --micro-batch) micro_batch="$2"; shift 2 ;;
        -*) usage ;;
        *) [ -z "$binary" ] || usage; binary="$1"; shift ;;
    esac
done
[ -n "$binary" ] && [ -x "$binary" ] || usage
binary="$(cd "$(dirname "$binary")" && pwd)/$(basename "$binary")"
case "$device" in cuda*) default_precision=bf16 ;; *) default_precision=f32 ;; esac
precision="${precision:-$default_precision}"
micro_batch="${micro_batch:-$([ -n "$small" ] && echo 4 || echo 8)}"
mkdir -p "$out" && cd "$out" || exit 1
# Remove only what an earlier call wrote.
if [ -n "$(ls -A .)" ] && [ ! -e .gpu-proof ]; then
    echo "gpu-proof.sh: $out is not empty: name a new folder with --out" >&2
    exit 2
fi
touch .gpu-proof
rm -rf runs ./*.json ./*.jsonl ./*.log ./*.txt result.md
# No cache outside of this folder: every kernel is compiled, and every check runs, here.
export PATCHTUI_RUNS_DIR="$PWD/runs" XDG_STATE_HOME="$PWD/state" XDG_CACHE_HOME="$PWD/cache" NO_COLOR=1
# Kill what still runs when this script exits, for any reason.
trap 'jobs -p | xargs --no-run-if-empty kill 2> /dev/null' EXIT
SECONDS=0
failed="" skipped="" json="" table=""

# --- results -------------------------------------------------------------------------------------------------------------------

# report PART VERDICT WORDS [JSON]: adds a row to the table and a member to the JSON document.
report() {
    local part="$1" verdict="$2" words="$3" members="${4:-}" id
    id="${part// = /}"
    printf '%-28s %-8s %s\n' "$part" "$verdict" "$words"
    table+="| $part | $verdict | $words |"$'\n'
    json+="${json:+,}$(printf '\n  "%s": {"verdict": "%s", "words": "%s"%s}' "${id// /_}" "$verdict" "${words//\"/\'}" "${members:+, $members}")"
    case "$verdict" in FAILED) failed=yes ;; "skipped") skipped+="${skipped:+, }$part" ;; esac
}

# has_time PART NEEDED: succeeds if a part of about NEEDED seconds still fits; otherwise reports it as skipped.
has_time() {
    [ $((SECONDS + $2)) -le "$seconds" ] && return 0
    report "$1" "skipped" "no time left: $SECONDS of $seconds s are used, it takes about $2 s"
    return 1
}

# left LIMIT: prints LIMIT or the remaining seconds, whichever is less.
left() {
    local rest=$((seconds > SECONDS ? seconds - SECONDS : 1))
    echo $((rest < $1 ? rest : $1))
}

# last_words FILE: prints the last error lines of a log as one line.
last_words() { grep -h -v '^$' "$1" 2>/dev/null | tail -2 | tr '\n"|\\' "  '//" | cut -c1-300; }

# message: prints the first "message" of a JSON document, compact or indented, with quotes as apostrophes.
message() { sed -n 's/.*"message": *"\(\([^"\\]\|\\.\)*\)".*/\1/p' | head -1 | sed "s/\\\\\"/'/g"; }

# reason NAME: prints why a run failed: the error it reported, or else the end of its log.
reason() {
    local why; why="$(grep '"type":"run_finished"' "$1.jsonl" 2>/dev/null | tail -1 | message)"
    echo "${why:-$(last_words "$1.log")}"
}

# numbers FILE KEY: prints the value of KEY in each line of a JSONL file.
numbers() { grep -o "\"$2\":[^,}]*" "$1" | cut -d: -f2-; }

# value FILE KEY: prints the first value of KEY in an indented JSON document.
value() { sed -n "s/^ *\"$2\": \"\{0,1\}\(.*[^,\"]\)\"\{0,1\},\{0,1\}$/\1/p" "$1" | head -1; }

# --- configurations ------------------------------------------------------------------------------------------------------------

# Twenty steps over both stages on the demo's text, small enough for any CPU; a software GPU still needs minutes.
step_tokens=4096
case "$small$device" in yeswgpu*) step_tokens=1024 ;; esac
tiny=(demo --set model.hidden_size=64 --set model.intermediate_size=176 --set model.num_hidden_layers=2 --set model.num_attention_heads=4
    --set model.num_key_value_heads=2 --set training.steps=20 --set "training.tokens_per_step=$step_tokens" --set training.context_length=64
    --set training.micro_batch_size=$((step_tokens / 512)) --set 'stages=[{patch_size=4,share=0.5},{patch_size=1}]' --set schedule.warmup_steps=2
    --set optimizer.learning_rate=3e-3 --set report.every_steps=1 --set evaluation.max_tokens=4k --set evaluation.every_steps=never
    --set activations.every_steps=never --set samples.every_steps=never)

# The timed run: no evaluations, no samples, checkpoints only at the end of a stage.
if [ -n "$small" ]; then
    sizes=(--set model.hidden_size=64 --set model.intermediate_size=176 --set model.num_hidden_layers=2 --set model.num_attention_heads=4)
    context=64
else
    sizes=(--set model.preset=paper-370m --set model.vocab_size=32000)
    context=2048
fi
speed=(demo "${sizes[@]}" --set "training.context_length=$context" --set "model.max_position_embeddings=$context"
    --set "training.micro_batch_size=$micro_batch" --set "training.tokens_per_step=$((micro_batch * context * 4))" --set "training.steps=$steps"
    --set 'stages=[{patch_size=4,share=0.5},{patch_size=1}]' --set "training.precision=$precision" --set report.every_steps=1
    --set evaluation.every_steps=never --set evaluation.max_tokens=1 --set activations.every_steps=never --set samples.every_steps=never
    --set checkpoint.every_steps=never --set data.validation_share=0.05)

# train NAME SECONDS ARGUMENTS...: trains in the foreground with a time limit. Writes NAME.jsonl, NAME.log and runs/NAME.
train() {
    local name="$1" limit="$2"; shift 2
    timeout --kill-after=10 "$(left "$limit")" "$binary" run "$@" --name "$name" --json > "$name.jsonl" 2> "$name.log" < /dev/null
}

# --- parts ---------------------------------------------------------------------------------------------------------------------

find_devices() {
    if "$binary" doctor --device "$device" --json > doctor.json 2> doctor.log; then
        name="$(sed -n 's/^ *"description": "\(.*\)",*$/\1/p' doctor.json | head -1)"
        report devices ok "$(value doctor.json model); ${name:-no GPU was opened}" "\"doctor\": $(tr -d '\n' < doctor.json)"
    else
        report devices FAILED "$device cannot be used: $(message < doctor.json)"
        finish
    fi
}

# Compares every operation, forward and backward, with the CPU: in f32 on the demo's shapes, and on those of the speed measurement.
check_operations() {
    local part="$1"; shift
    if timeout "$(left 300)" "$binary" doctor --device "$device" --check "$@" --json > "check.json" 2> check.log; then
        report "$part" ok "$(grep -c '"operation":' check.json) comparisons; furthest: $(furthest check.json)" "\"check\": $(sed -n '/^  "check"/,$p' check.json | sed '1s/^ *"check": //;$d' | tr -d '\n')"
    else
        local why; why="$(message < check.json)"
        report "$part" FAILED "${why:-$(last_words check.log)}"
    fi
    mv check.json "${part// /-}.json" 2>/dev/null
}

# furthest FILE: prints the operation that uses most of its tolerance.
furthest() {
    awk '/"operation":/ { gsub(/^ *"operation": "|",$/, ""); operation = $0 } /"difference":/ { gsub(/[^0-9.e-]/, "", $2); difference = $2 }
        /"tolerance":/ { gsub(/[^0-9.e-]/, "", $2); if (difference / $2 >= most) { most = difference / $2; what = sprintf("%s %.1e of %.0e", operation, difference, $2) } }
        END { print what }' "$1"
}

# Takes the same twenty steps on the device and on the CPU; the losses must be equal up to rounding.
compare_losses() {
    local limit="1e-2"; [ "$device" = cpu ] && limit=0
    train parity-cpu 120 "${tiny[@]}" --device cpu || { report parity FAILED "on the CPU: $(reason parity-cpu)"; return; }
    train parity-device 200 "${tiny[@]}" --device "$device" || { report parity FAILED "$(reason parity-device)"; return; }
    local worst
    worst="$(paste <(numbers runs/parity-cpu/metrics.jsonl loss) <(numbers runs/parity-device/metrics.jsonl loss) |
        awk '{ difference = $1 > $2 ? $1 - $2 : $2 - $1; if (difference > worst) worst = difference; count += ($1 + 0 > 0 && $2 + 0 > 0) } END { printf "%d %.2e", count, worst }')"
    local words="${worst%% *} losses over both stages, furthest ${worst##* } nats apart (at most $limit)"
    if awk -v worst="${worst##* }" -v count="${worst%% *}" -v limit="$limit" 'BEGIN { exit !(count == 20 && worst <= limit) }'; then
        report parity ok "$words" "\"furthest_nats\": ${worst##* }, \"steps\": ${worst%% *}"
    else
        report parity FAILED "$words"
    fi
}

# Kills a run between two checkpoints and resumes it; it must end where an uninterrupted run ends.
kill_and_resume() {
    local config=("${tiny[@]}" --set checkpoint.every_steps=4 --device "$device") process waited=0
    "$binary" run "${config[@]}" --name killed --json > killed.jsonl 2> killed.log < /dev/null &
    process=$!
    # Wait for step 6: by then the checkpoint of step 4 is complete.
    until [ "$(grep -c '"step"' runs/killed/metrics.jsonl 2>/dev/null || true)" -ge 6 ] 2>/dev/null; do
        kill -0 "$process" 2>/dev/null || break
        waited=$((waited + 1)); [ "$waited" -gt 6000 ] && break
        sleep 0.02
    done
    kill -KILL "$process" 2>/dev/null; wait "$process" 2>/dev/null
    local killed_at; killed_at="$(numbers runs/killed/metrics.jsonl step 2>/dev/null | tail -1)"
    if ! timeout "$(left 200)" "$binary" resume killed --json > resumed.jsonl 2> resumed.log < /dev/null; then
        report "kill and resume" FAILED "killed after step ${killed_at:-0}: $(reason resumed)"
        return
    fi
    local resumed_from found expected difference
    resumed_from="$(grep -o '"resumed_from":[0-9]*' resumed.jsonl | head -1 | cut -d: -f2)"
    found="$(numbers runs/killed/metrics.jsonl loss | tail -1)"; expected="$(numbers runs/parity-device/metrics.jsonl loss | tail -1)"
    difference="$(awk -v a="$found" -v b="$expected" 'BEGIN { printf "%.2e", (a > b ? a - b : b - a) }')"
    local words="killed after step ${killed_at:-0}, resumed from step ${resumed_from:-0}; last loss $found, uninterrupted $expected"
    local limit="1e-2"; [ "$device" = cpu ] && limit=0
    if awk -v difference="$difference" -v limit="$limit" -v a="$found" -v b="$expected" 'BEGIN { exit !(a + 0 > 0 && b + 0 > 0 && difference <= limit) }'; then
        report "kill and resume" ok "$words" "\"killed_after\": ${killed_at:-0}, \"resumed_from\": ${resumed_from:-0}, \"difference\": $difference"
    else
        report "kill and resume" FAILED "$words"
    fi
}

# peak_flops: prints the data sheet's dense bf16 peak, or nothing for an unknown GPU or in f32.
peak_flops() {
    [ "$precision" = bf16 ] || return
    case "$name" in
        *H200*|*"H100 NVL"*|*H100*PCIe*) case "$name" in *H200*) echo 989e12 ;; *NVL*) echo 835e12 ;; *) echo 756e12 ;; esac ;;
        *H100*) echo 989e12 ;; *A100*) echo 312e12 ;; *B200*) echo 2250e12 ;; *L40S*) echo 362e12 ;; *L40*) echo 181e12 ;; *L4*) echo 121e12 ;;
        *4090*) echo 165e12 ;; *3090*) echo 71e12 ;; *A6000*) echo 155e12 ;;
    esac
}

# Reads metrics lines; prints tokens/s and FLOP/s over the lines after the third.
rates='
    function field(key,   rest) { rest = $0; sub(".*\"" key "\":", "", rest); sub(/[,}].*/, "", rest); return rest + 0 }
    {
        tokens = field("tokens"); flops = field("flops")
        if (++count > 3) { done += tokens - last_tokens; worked += flops - last_flops; time += field("step_seconds") }
        last_tokens = tokens; last_flops = flops
    }
    END { if (time > 0) printf "%.0f %.4g\n", done / time, worked / time; else print "0 0" }'

# Measures tokens/s of both stages. Only steps after the third of a stage count, when kernels are compiled and tuned.
measure_speed() {
    local watcher="" status
    if command -v nvidia-smi > /dev/null && [ "${device%%:*}" != cpu ]; then
        (while :; do nvidia-smi --query-gpu=memory.used --format=csv,noheader,nounits; sleep 1; done) > memory.txt 2> /dev/null & watcher=$!
    fi
    train speed 400 "${speed[@]}" --device "$device"; status=$?
    [ -n "$watcher" ] && kill "$watcher" 2> /dev/null && wait "$watcher" 2> /dev/null
    if [ "$status" -ne 0 ]; then
        report speed FAILED "exit code $status: $(reason speed)"
        return
    fi
    local memory stage; memory="$(sort -n memory.txt 2>/dev/null | tail -1)"
    local burn; burn="$(grep -o 'device memory after.*' speed.log | tail -1)"
    for stage in 0 1; do
        local k tokens_per_second flops share=""
        k="$([ "$stage" = 0 ] && echo 4 || echo 1)"
        grep "\"stage\":$stage," runs/speed/metrics.jsonl | awk "$rates" > "speed-$stage.txt"
        read -r tokens_per_second flops < "speed-$stage.txt"
        local peak; peak="$(peak_flops)"
        [ -n "$peak" ] && share="$(awk -v a="$flops" -v b="$peak" 'BEGIN { printf ", MFU %.1f %%", 100 * a / b }')"
        report "speed K = $k" ok "$tokens_per_second tokens/s, $(awk -v a="$flops" 'BEGIN { printf "%.4g", a / 1e12 }') TFLOP/s$share, $precision, context $context, $micro_batch sequences at once" \
            "\"tokens_per_second\": $tokens_per_second, \"flops_per_second\": $flops, \"precision\": \"$precision\", \"context\": $context, \"micro_batch\": $micro_batch${peak:+, \"peak_flops\": $peak}"
    done
    report memory ok "${memory:+$memory MiB at most by nvidia-smi; }${burn:-memory of the Burn pools is unknown}" "\"nvidia_smi_mib\": ${memory:-null}"
}

# Trains the same network in PyTorch: compiled, bf16 autocast, scaled-dot-product attention, fused AdamW; patches are mean embeddings.
compare_with_pytorch() {
    local python; python="$(command -v python3 || true)"
    local target=cpu; [ "${device%%:*}" = cpu ] || target=cuda
    if [ -z "$python" ] || ! "$python" -c "import torch, sys; sys.exit(0 if '$target' == 'cpu' or torch.cuda.is_available() else 1)" 2> /dev/null; then
        report pytorch "skipped" "no Python with PyTorch for $target here"
        return
    fi
    local hidden=1024 inner=2752 layers=24 heads=16 vocabulary=32000
    [ -n "$small" ] && hidden=64 inner=176 layers=2 heads=4 vocabulary=1152
    timeout --kill-after=10 "$(left 600)" "$python" - "$target" "$precision" "$context" "$micro_batch" "$hidden" "$inner" "$layers" "$heads" "$vocabulary" "$small" > pytorch.txt 2> pytorch.log << 'PYTHON'
import sys, time, torch
from torch import nn
from torch.nn import functional as F
target, precision = sys.argv[1:3]
context, batch, hidden, inner, layers, heads, vocabulary = map(int, sys.argv[3:10])
small = sys.argv[10] == "yes"

class Norm(nn.Module):
    def __init__(self):
        super().__init__(); self.weight = nn.Parameter(torch.ones(hidden))
    def forward(self, x):
        return F.rms_norm(x, (hidden,), self.weight, 1e-6)

def turn(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)

class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.qkv, self.o, self.gate_up, self.down = linear(hidden, 3 * hidden), linear(hidden, hidden), linear(hidden, 2 * inner), linear(inner, hidden)
        self.first, self.second = Norm(), Norm()
    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q, k, v = (y.view(b, t, heads, -1).transpose(1, 2) for y in self.qkv(self.first(x)).chunk(3, -1))
        mixed = F.scaled_dot_product_attention(turn(q, cos, sin), turn(k, cos, sin), v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(b, t, hidden))
        gate, up = self.gate_up(self.second(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head, self.norm = nn.Embedding(vocabulary, hidden), nn.Linear(hidden, vocabulary, bias=False), Norm()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
    def forward(self, ids, k, cos, sin):
        b, t = ids.shape[0], ids.shape[1] // k
        x = self.table(ids).view(b, t, k, hidden).mean(2)
        for layer in self.layers:
            x = layer(x, cos, sin)
        logits = self.head(self.norm(x))[:, :-1].reshape(-1, vocabulary).float()
        targets = ids.view(b, t, k)[:, 1:].reshape(-1, k)
        return (torch.logsumexp(logits, -1, keepdim=True) - logits.gather(1, targets)).mean()

torch.manual_seed(0)
torch.set_float32_matmul_precision("high")
model = Model().to(target)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=target == "cuda")
width = hidden // heads
angles = torch.outer(torch.arange(context), 1.0 / 10000.0 ** (torch.arange(0, width, 2) / width)).to(target)
cos, sin = angles.cos(), angles.sin()
compute = model if small else torch.compile(model)
for k in (4, 1):
    micro_batches = 1 if k == 4 else 4
    ids = torch.randint(0, vocabulary, (batch, context * k), device=target)
    def step():
        for _ in range(micro_batches):
            with torch.autocast(target, torch.bfloat16, enabled=precision == "bf16"):
                loss = compute(ids, k, cos, sin) / micro_batches
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step(); optimizer.zero_grad(set_to_none=True)
    wait = torch.cuda.synchronize if target == "cuda" else (lambda: None)
    for _ in range(3):
        step()
    wait(); started = time.perf_counter(); count = 8
    for _ in range(count):
        step()
    wait()
    print(k, round(count * micro_batches * ids.numel() / (time.perf_counter() - started)), torch.__version__, flush=True)
PYTHON
    local status=$?
    if [ "$status" -ne 0 ]; then
        report pytorch FAILED "$(last_words pytorch.log)"
        return
    fi
    while read -r k tokens_per_second version; do
        local ours compiled=", compiled"
        ours="$(printf '%s' "$table" | sed -n "s/^| speed K = $k | ok | \([0-9]*\) .*/\1/p")"
        [ -n "$small" ] && compiled=""
        local ratio; ratio="$(awk -v a="${ours:-0}" -v b="$tokens_per_second" 'BEGIN { printf "%.2f", (b > 0 ? a / b : 0) }')"
        report "pytorch K = $k" ok "$tokens_per_second tokens/s (torch $version$compiled, $precision); patchtui is $ratio times as fast" \
            "\"tokens_per_second\": $tokens_per_second, \"version\": \"$version\", \"ratio\": $ratio"
    done < pytorch.txt
}

# finish: writes both results and exits.
finish() {
    local verdict="passed"; [ -n "$failed" ] && verdict="FAILED"
    {
        printf '{\n  "verdict": "%s", "version": "%s", "device": "%s", "at": "%s", "seconds": %d, "small": %s,' \
            "$verdict" "$("$binary" --version)" "$device" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$SECONDS" "$([ -n "$small" ] && echo true || echo false)"
        printf '%s\n}\n' "$json"
    } > result.json.tmp && mv result.json.tmp result.json
    {
        printf '# %s on %s: %s\n\n' "$("$binary" --version)" "$device" "$verdict"
        printf '%s, %d s%s%s.\n\n' "$(date -u +%Y-%m-%d)" "$SECONDS" "$([ -n "$small" ] && echo ', tiny networks')" "${skipped:+; skipped: $skipped}"
        printf '| part | verdict | result |\n|---|---|---|\n%s' "$table"
    } > result.md.tmp && mv result.md.tmp result.md
    echo "$verdict after $SECONDS s: $PWD/result.md, $PWD/result.json"
    [ -z "$failed" ]; exit
}

name=""
find_devices
check_operations "operations f32" demo
if [ -n "$small" ]; then
    [ "$precision" = f32 ] || check_operations "operations $precision" demo --set "training.precision=$precision"
else
    has_time "operations $precision" 60 && check_operations "operations $precision" "${speed[@]}"
fi
has_time parity 40 && compare_losses
has_time "kill and resume" 30 && kill_and_resume
has_time speed 120 && measure_speed
has_time pytorch 100 && compare_with_pytorch
finish
