# Functions that the benchmarks in this directory share. A benchmark sources this file in the repository's root. It sets
# SCRATCH.
# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154 # the benchmark sets SCRATCH

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "$@"; exit 1; }

# Creates a directory below SCRATCH, which must be on a disk, and sets `scratch` to it.
make_scratch() {
  mkdir -p "$SCRATCH"
  scratch=$(mktemp -d "$SCRATCH/run.XXXXXX")
  scratch=$(cd "$scratch" && pwd)
  case $(file_system) in
    tmpfs | ramfs) die "$SCRATCH is in memory: set SCRATCH to a directory on a disk" ;;
  esac
}

file_system() { df --output=fstype "$scratch" | tail -n 1; }

# Median of the numbers on standard input.
median_of() { sort -n | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# Median (least–greatest) of the numbers on standard input, divided by $1 and with $2 decimal places.
spread_of() {
  sort -n | awk -v by="$1" -v d="$2" '{ v[NR] = $1 / by }
    END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
      printf "%.*f (%.*f–%.*f)", d, m, d, v[1], d, v[NR] }'
}
