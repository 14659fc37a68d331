#!/usr/bin/env bash
# The claims of the low-bit family, as they were run once on fresh seeds: settings were chosen on
# validation with seeds 0 to 4 before this file was committed.
#
#     benchmarks/low_bit_claims.sh conntra         CoNNTrA: throughput, small networks, MNIST, Fashion-MNIST
#     benchmarks/low_bit_claims.sh conntra_wide    784-512-10, ten minutes for each training
#     benchmarks/low_bit_claims.sh ternary         a ternary network beside its teacher
#     benchmarks/low_bit_claims.sh bit_layers      accuracy against the number of bit layers
#     benchmarks/low_bit_claims.sh ensembles       accuracy against the number of sampled networks
#     benchmarks/low_bit_claims.sh binary_conv4    binary convolutions on MNIST
#     benchmarks/low_bit_claims.sh binary_wide     a wide binary MLP on MNIST
#     benchmarks/low_bit_claims.sh binary_cifar10  binary convolutions on CIFAR-10, one seed
#
# Runs of limited time count processor seconds of one thread (--clock cpu). PYTHON names the Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=${PYTHON:-.venv/bin/python}
seeds="100 101 102"

conntra() {
  "$python" benchmarks/conntra_throughput.py --certify --out results/conntra_throughput.jsonl
  local on_mnist="$python benchmarks/conntra_mnist.py --clock cpu --test --out results/conntra_mnist.jsonl"
  for seed in $seeds; do
    $on_mnist --seed "$seed" --hidden 128 --seconds 120
    $on_mnist --seed "$seed" --hidden 256 --seconds 120
    $on_mnist --seed "$seed" --data fashion_mnist --hidden 256 --seconds 120
    $on_mnist --seed "$seed" --hidden 128 --start float --seconds 60
    $on_mnist --seed "$seed" --hidden 256 --start straight_through --full --seconds 120
  done
  local small="$python benchmarks/conntra_small.py --first-seed 100 --out results/conntra_small.jsonl"
  $small iris --seeds 20 --sweeps 30
  $small digits --seeds 5 --technique "guided=0"
  $small oracle --seeds 20
}

conntra_wide() {
  for seed in $seeds; do
    "$python" benchmarks/conntra_mnist.py --clock cpu --test --out results/conntra_mnist_wide.jsonl \
      --seed "$seed" --hidden 512 --seconds 600
  done
}

# Usage: compared FILE TASK TECHNIQUE OPTION...: `whit compare`, its rows in results/FILE.
compared() {
  local file=$1 runs
  shift
  runs=whit-runs/claims/${file%.jsonl}
  mkdir -p "$runs"
  "$python" -m whit compare "$@" --out "$runs" --save-to "$runs"
  cp "$runs/results.jsonl" "results/$file"
}

ternary() {
  compared mnist_ternary.jsonl "mnist(model='mlp4')" "ternary_network(candidates=0)" \
    --seed 100 --seeds 3
  "$python" benchmarks/teacher_scores.py whit-runs/claims/mnist_ternary \
    --out results/mnist_ternary_teachers.jsonl
}

bit_layers() {
  "$python" benchmarks/bit_layers.py "mnist(model='mlp4')" --bits 7 --seed 100 --seeds 3 --test \
    --out results/bit_layers.jsonl
}

ensembles() {
  "$python" benchmarks/bitwise_ensembles.py "mnist(model='mlp4')" --seed 100 --seeds 3 --test \
    --out results/bitwise_ensembles.jsonl --page whit-runs/bitwise_ensembles.html
}

binary_conv4() {
  compared mnist_binary_conv4.jsonl "mnist(model='conv4')" \
    "binarized_network(first='real', last='real')" --epochs 16 --seed 100 --seeds 3
}

binary_wide() {
  compared mnist_binary_wide.jsonl "mnist(model='mlp4_wide')" \
    "binarized_network(first='real', last='real', gradient='approxsign')" \
    --epochs 16 --seed 100 --seeds 3
}

binary_cifar10() {
  compared cifar10_binary.jsonl "cifar10(model='conv4', width=2)" \
    "binarized_network(first='real', last='real')" --epochs 6 --seed 100 --seeds 1
}

"${1:?name what to run; see the first lines of this file}"
