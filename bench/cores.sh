# Chooses the cores of server and load. Sourced after common.sh. `make_scratch` must be called before `pick_cores`.
# shellcheck shell=bash
# shellcheck disable=SC2154 # common.sh sets scratch

# Sets SERVER_CORE and LOAD_CORE, unless they are set, and reports them. The server gets the core that handles the disk's
# interrupts. On another core, each write would wake a kernel thread on the load's core and wait until the load yields.
pick_cores() {
  local cores
  cores=$(allowed_cores)
  SERVER_CORE=${SERVER_CORE:-$(disk_core)}
  SERVER_CORE=${SERVER_CORE:-$(head -n 1 <<<"$cores")}
  LOAD_CORE=${LOAD_CORE:-$(grep -vx "$SERVER_CORE" <<<"$cores" | head -n 1)}
  [ -n "$LOAD_CORE" ] && [ "$SERVER_CORE" != "$LOAD_CORE" ] || die "server and load need different cores"
  taskset -c "$SERVER_CORE,$LOAD_CORE" true || die "cores $SERVER_CORE and $LOAD_CORE are not both available"
  say "server on core $SERVER_CORE, load on core $LOAD_CORE"
}

# The cores that this process may use, one per line.
allowed_cores() {
  local range
  for range in $(taskset -cp $$ | sed 's/.*: //; s/,/ /g'); do seq "${range%-*}" "${range#*-}"; done
}

# Of the cores that this process may use, the one that has handled most interrupts of the disk with `scratch`. Prints
# nothing if that cannot be determined.
disk_core() {
  local device
  device=$(basename "$(readlink -f "$(df --output=source "$scratch" | tail -n 1)")")
  device=$(readlink -f "/sys/class/block/$device")
  # The parent directory of a partition is its disk; the controller, which has the interrupts, is further up.
  while [ ! -d "$device/msi_irqs" ]; do
    [ "$device" != / ] || return 0
    device=$(dirname "$device")
  done
  # The first line names the cores. Each other line begins with an interrupt's number and its count per core.
  awk -v irqs="$(ls "$device/msi_irqs")" -v allowed="$(allowed_cores)" '
    BEGIN {
      split(irqs, list); for (i in list) is_wanted[list[i] ":"]
      split(allowed, list); for (i in list) is_allowed["CPU" list[i]]
    }
    NR == 1 { cores = split($0, name) }
    $1 in is_wanted { for (i = 1; i <= cores; i++) count[i] += $(i + 1) }
    END {
      for (i in count) if (name[i] in is_allowed && count[i] > most) { most = count[i]; found = substr(name[i], 4) }
      if (most) print found
    }' /proc/interrupts
}
