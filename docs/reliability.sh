#!/usr/bin/env bash
# Runs the reliability scripts one after the other and summarizes their results.
#
#   docs/reliability.sh SCRIPTS PATCHTUI [--only PATTERN] [--out FOLDER] [--seconds N]
#
#   SCRIPTS         folder of the scripts: every file [0-9]*.py in it is run as `python3 SCRIPT PATCHTUI`, in the order of the names
#   PATCHTUI        the program, a release build
#   --only PATTERN  run only the scripts whose names match this shell pattern, like '0*' or '13_clock' [default: all]
#   --out FOLDER    folder for a log per script and the table, reliability.md [default: reliability]
#   --seconds N     time limit for each script [default: 3600]
#
# A script prints one line per check and ends with "SUMMARY NAME: tried N, held N, failed N". Prints a table of those lines. Exits
# with 0 if every check of every script held, and with 1 if one failed, or if a script ended without a summary or in an error.
set -uo pipefail

out=reliability only="*" limit=3600 places=()
usage() { sed -n '2,/^# with 0/p' "$0" | sed 's/^# \{0,1\}//' >&2; exit 2; }
while [ $# -gt 0 ]; do
    case "$1" in
        --only) [ $# -gt 1 ] || usage; only="$2"; shift 2 ;;
        --out) [ $# -gt 1 ] || usage; out="$2"; shift 2 ;;
        --seconds) [ $# -gt 1 ] || usage; limit="$2"; shift 2 ;;
        -*) usage ;;
        *) places+=("$1"); shift ;;
    esac
done
[ ${#places[@]} -eq 2 ] && [ -d "${places[0]}" ] && [ -x "${places[1]}" ] && [ ! -d "${places[1]}" ] || usage
scripts="$(cd "${places[0]}" && pwd)"
binary="$(cd "$(dirname "${places[1]}")" && pwd)/$(basename "${places[1]}")"
mkdir -p "$out" && out="$(cd "$out" && pwd)" || exit 2

# Whatever still runs when this script is interrupted.
trap 'jobs -p | xargs --no-run-if-empty kill 2> /dev/null' EXIT
failed="" logs=()
row() { printf '| %s | %s | %s | %s | %s |\n' "$@" | tee -a "$out/reliability.md"; }
printf '%s, %s, %s CPUs\n\n' "$("$binary" --version)" "$(date -u +%Y-%m-%d)" "$(nproc)" > "$out/reliability.md"
row name tried held failed seconds
row --- --- --- --- ---
for script in "$scripts"/[0-9]*.py; do
    name="$(basename "$script" .py)"
    # shellcheck disable=SC2053  # A pattern is meant.
    [ -e "$script" ] && [[ "$name" == $only ]] || continue
    logs+=("$out/$name.log")
    work="$(mktemp -d)" started=$SECONDS
    # In the background, so that an interruption of this script is heard at once.
    RELIABILITY_DIR="$work" PYTHONDONTWRITEBYTECODE=1 timeout --kill-after=10 "$limit" python3 "$script" "$binary" > "$out/$name.log" 2>&1 < /dev/null &
    wait $!
    status=$?
    rm -rf "$work"
    read -r tried held missed < <(sed -n 's/^SUMMARY .*: tried \([0-9]*\), held \([0-9]*\), failed \([0-9]*\)$/\1 \2 \3/p' "$out/$name.log" | tail -1)
    if [ -z "${missed:-}" ]; then
        row "$name" - - "no summary, exit code $status" $((SECONDS - started))
        failed=yes
    else
        row "$name" "$tried" "$held" "$missed" $((SECONDS - started))
        [ "$missed" -eq 0 ] && [ "$status" -eq 0 ] || failed=yes
    fi
done
[ ${#logs[@]} -gt 0 ] || { echo "reliability.sh: no script in $scripts matches $only" >&2; exit 2; }
# What did not hold.
grep -H '^FAIL' "${logs[@]}" | sed "s|^$out/||" >&2
[ -z "$failed" ]
