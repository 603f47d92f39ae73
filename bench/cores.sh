# Which core serves and which loads. Sourced after common.sh; `scratch` is there when `pick_cores` is called.
# shellcheck shell=bash
# shellcheck disable=SC2154 # scratch is common.sh's

# Sets SERVER_CORE and LOAD_CORE, unless they are set, and shows both. The server's is the one at which the disk's interrupts
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

# The core, of those that this process may use, that had most of the interrupts of the disk on which `scratch` is; nothing where
# that is not to be found out.
disk_core() {
  local device=/sys/class/block/ irqs
  device=$(readlink -f "$device$(basename "$(readlink -f "$(df --output=source "$scratch" | tail -n 1)")")")
  # A disk behind a partition is the directory above, the controller with the interrupts one further up.
  while [ "$device" != / ] && [ ! -d "$device/msi_irqs" ]; do device=$(dirname "$device"); done
  [ "$device" != / ] || return 0
  irqs=$(ls "$device/msi_irqs")
  awk -v irqs="$irqs" -v allowed="$(allowed_cores)" '
    BEGIN { n = split(irqs, list); for (i = 1; i <= n; i++) wanted[list[i] ":"]; n = split(allowed, list); for (i = 1; i <= n; i++) may[list[i]] }
    NR == 1 { for (i = 1; i <= NF; i++) core[i + 1] = substr($i, 4); cores = NF }
    $1 in wanted { for (i = 2; i <= cores + 1; i++) if (core[i] in may) sum[core[i]] += $i }
    END { most = 0; for (c in sum) if (sum[c] > most) { most = sum[c]; found = c }; if (most) print found }' /proc/interrupts
}
