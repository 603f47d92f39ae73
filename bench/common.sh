# What the comparisons in this directory share; they source it from the repository's root, with SCRATCH set.
# shellcheck shell=bash
# shellcheck disable=SC2153,SC2154 # SCRATCH is whoever sources it's

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
die() { say "$@"; exit 1; }

# Makes a directory on a disk below SCRATCH, and names it in `scratch`.
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

# Median (least–greatest) of the numbers on standard input, divided by the one and with so many digits as the other argument
# says.
spread_of() {
  sort -n | awk -v by="$1" -v d="$2" '{ v[NR] = $1 / by }
    END { m = NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2
      printf "%.*f (%.*f–%.*f)", d, m, d, v[1], d, v[NR] }'
}
