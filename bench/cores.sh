# Which core serves and which loads. Sourced after common.sh; `scratch` is there when `pick_cores` is called.
# shellcheck shell=bash
# shellcheck disable=SC2154 # scratch is common.sh's

# Sets SERVER_CORE and LOAD_CORE, unless they are set, and says which they are. The server's is the one at which the disk's interrupts
# arrive: elsewhere each write wakes a kernel thread on the load's core, and waits there until the load lets it run.
pick_cores() {
  local cores
  cores=$(allowed_cores)
  SERVER_CORE=${SERVER_CORE:-$(disk_core)}
  SERVER_CORE=${SERVER_CORE:-$(head -n 1 <<<"$cores")}
  LOAD_CORE=${LOAD_CORE:-$(grep -vx "$SERVER_CORE" <<<"$cores" | head -n 1)}
  [ -n "$LOAD_CORE" ] && [ "$SERVER_CORE" != "$LOAD_CORE" ] || die "the server and the load need a core each"
  taskset -c "$SERVER_CORE,$LOAD_CORE" true || die "cores $SERVER_CORE and $LOAD_CORE are not both available"
  say "the server on core $SERVER_CORE, the load on core $LOAD_CORE"
}

# The cores that this process may use, one a line.
allowed_cores() {
  local range
  for range in $(taskset -cp $$ | sed 's/.*: //; s/,/ /g'); do seq "${range%-*}" "${range#*-}"; done
}

# The core that had most of the interrupts of the disk on which `scratch` is, of those that this process may use; nothing where
# that is not to be found out.
disk_core() {
  local device
  device=$(basename "$(readlink -f "$(df --output=source "$scratch" | tail -n 1)")")
  device=$(readlink -f "/sys/class/block/$device")
  # A partition's disk is the directory above, the controller that has the interrupts one further up.
  while [ ! -d "$device/msi_irqs" ]; do
    [ "$device" != / ] || return 0
    device=$(dirname "$device")
  done
  # The first line names the cores, the others begin with an interrupt's number and how often it came at each.
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
