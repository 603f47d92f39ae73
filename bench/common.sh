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
