#!/bin/sh
# One sitting of the Imagenette recording on one GPU: at most SECONDS of training (default 540), from where the
# last sitting stopped. Call it again until it says that the run is recorded.
#
#   sh benchmarks/record_imagenette.sh ROOT [CONFIG] [SECONDS] [KEY=VALUE ...]
#
# ROOT holds train/CLASS/*.jpg and val/CLASS/*.jpg. CONFIG: imagenette_resnet18 (default) or imagenette_resnet50.
# SIGTERM lets the step end, saves and exits with 143; the next sitting goes on from there to the same bits.
set -u
root=$1
config=${2:-imagenette_resnet18}
seconds=${3:-540}
[ $# -gt 3 ] && shift 3 || shift $#
out=runs/$config

if [ ! -f "$out/encoder.safetensors" ]; then
    timeout --signal TERM "$seconds" \
        python -m barlow_edu pretrain "$config" --out "$out" --auto-resume --set root="$root" "$@"
    status=$?
    if [ $status -eq 143 ] || [ $status -eq 124 ]; then
        [ -f "$out/checkpoint.pt" ] && echo "Saved in $out. Call again to go on." ||
            echo "Nothing is saved yet: give it more seconds."
        exit 0
    fi
    [ $status -eq 0 ] || exit $status
fi
# kNN (k = 200, temperature 0.1) and linear probe on the validation images, beside pixels and a random encoder.
[ -f "$out/evaluation.json" ] || python -m barlow_edu evaluate "$out" --save || exit $?
python -m barlow_edu record "$out" "$config" && echo "Recorded as data/runs/$config."
