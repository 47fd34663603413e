#!/usr/bin/env bash
# Correctness, the table of steps, and a fine-tuning of CIFAR-10's size as published, on a GPU, in ten minutes.
# Without a GPU the same programs run at toy size, which shows that they work and nothing else.
#
#   benchmarks/gpu.sh [path of the Python to use]
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${1:-.venv/bin/python}
export PYTHONPATH=$PWD

if "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || true
  step=(--networks small medium --copies 4 8 --rows 2048 --rounds 5)
  large=(--networks large --copies 8 --rows 512 --rounds 3)
  tune=()
  bench=(--measured 4)
  compile=true
else
  echo "no GPU: toy sizes"
  step=(--networks toy --copies 2 --rows 8 --rounds 1 --resolution 16)
  large=("${step[@]}")
  tune=(--network toy --num-images 30 --copies 2)
  bench=(--measured 1)
  compile=false  # a CPU's compiler takes minutes, for what saves seconds
fi

echo "== correctness"
"$PYTHON" -m pytest -q tests/privacy/test_engines.py tests/privacy/test_per_sample.py tests/privacy/test_dpsgd.py \
  tests/diffusion/test_keyed_noise.py tests/diffusion/test_training.py tests/test_finetune.py 2>&1 | tail -n 5
echo "== a step, float32"
"$PYTHON" benchmarks/dp_step.py "${step[@]}"
echo "== a step, bfloat16"
"$PYTHON" benchmarks/dp_step.py "${step[@]}" --precision bfloat16
"$PYTHON" benchmarks/dp_step.py "${large[@]}" --precision bfloat16
if $compile; then
  echo "== a step, bfloat16, compiled"
  "$PYTHON" benchmarks/dp_step.py "${step[@]}" --precision bfloat16 --compile --engines none fast
fi
echo "== what comes once a step"
"$PYTHON" benchmarks/dp_step.py --once --networks "${step[1]}"
echo "== fine-tuning: CIFAR-10 as published (N = 50,000, q = 1/3, T = 150, K = 8, 1.75 M parameters)"
"$PYTHON" benchmarks/finetune.py "${tune[@]}" "${bench[@]}"
if $compile; then "$PYTHON" benchmarks/finetune.py "${tune[@]}" "${bench[@]}" --compile; fi
echo "== fine-tuning: the benchmark's setting (q = 1/13, T = 1950, K = 32, 3.95 M parameters)"
if [ ${#tune[@]} -eq 0 ]; then tune=(--network medium --sampling-probability 0.076923 --num-steps 1950 --copies 32); fi
"$PYTHON" benchmarks/finetune.py "${tune[@]}" "${bench[@]}"
