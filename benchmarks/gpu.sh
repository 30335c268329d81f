#!/bin/sh
# One sitting on one GPU: CIFAR-10 with a ResNet-18, from where the last sitting stopped; kNN; the table of steps.
#
#   sh benchmarks/gpu.sh OUT ROOT [FROM] [KEY=VALUE ...]
#
# OUT: the folder that gets everything: run/ (with its checkpoint), knn.jsonl, gpu_step.md. ROOT: CIFAR-10, a class-folder
# tree, torchvision's files, or a zip of either. FROM: OUT of the sitting before, if that is another folder; "-" for none.
# KEY=VALUE: settings in place of the recipe's. A sitting lasts SITTING seconds at most (default 540). Without a GPU the
# same runs on the CPU: that is a rehearsal. TERM lets a step end, saves, and the next sitting goes on to the same bits.
set -eu
out=$1 root=$2 from=${3:--}
[ $# -gt 3 ] && shift 3 || shift $#
here=$(cd "$(dirname "$0")" && pwd)
export PYTHONPATH="$here/..${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
began=$(date +%s)
left() { echo $((${SITTING:-540} - $(date +%s) + began - $1)); } # seconds, when so many are kept back
steps_to_time=0
[ -e "$out/gpu_step.md" ] || [ -e "$from/gpu_step.md" ] || steps_to_time=150
knn=60
mkdir -p "$out"
[ "$from" = - ] || [ -e "$out/run" ] || cp -r "$from/run" "$from"/*.jsonl "$out"

case $root in *.zip)
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    python -m zipfile -e "$root" "$unpacked"
    train=$(find "$unpacked" -type d -name train | head -n 1)
    root=${train:+${train%/train}}
    root=${root:-$unpacked}
    ;;
esac
compile=$(python -c "import torch; print(torch.cuda.is_available())")

# Views are made on the GPU; bfloat16 and channels last are chosen by themselves.
seconds=$(left $((knn + steps_to_time))) status=0
[ "$seconds" -gt 0 ] || { echo "SITTING is too short: kNN and steps take $((knn + steps_to_time)) s."; exit 1; }
timeout --signal TERM "$seconds" python -m barlow_edu pretrain cifar10_resnet18 \
    --out "$out/run" --auto-resume --set root="$root" compile="$compile" log_every=50 "$@" || status=$?
case $status in
0 | 124 | 143) [ -f "$out/run/checkpoint.pt" ] || { echo "Nothing is saved yet: a longer SITTING is needed."; exit 1; } ;;
*) exit $status ;;
esac
rm -f "$out/run/checkpoint_previous.pt" # half of what has to be carried

# kNN (k = 200, temperature 0.1) of the last checkpoint, whose weights are put where those of a finished run stand.
python - "$out" <<'PYTHON'
import json, sys
from pathlib import Path
import barlow_edu as be
from barlow_edu.config import build_model
from barlow_edu.storage.checkpoints import read_checkpoint
from barlow_edu.storage.run_folder import write_weights
out = Path(sys.argv[1])
run, saved = be.load_run(out / "run"), read_checkpoint(out / "run")
model = build_model(run.config)
model.load_state_dict(saved["model"])
write_weights(out / "run/encoder.safetensors", model.encoder.state_dict())
results = be.evaluate(run, linear=False)
row = {"step": saved["step"], "minutes": round(saved["minutes"], 2), "results": results}
with open(out / "knn.jsonl", "a") as lines:
    lines.write(json.dumps(row) + "\n")
print(json.dumps(row))
PYTHON

if [ $steps_to_time -gt 0 ]; then
    how="--no-compile --no-largest"
    [ "$compile" = True ] || how=--tiny
    # shellcheck disable=SC2086
    timeout "$(left 0)" python "$here/gpu_step.py" --out "$out" $how || echo "gpu_step.py was cut short."
fi
echo "Everything is in $out; the same command goes on from there."
