#!/usr/bin/env bash
# Compares a durable push with an empty response from nginx. Both servers get the same POST of one message from wrk, in turn.
# The servers run on one core, wrk on another. Prints Markdown tables on standard output and progress on standard error.
#
#   bench/edge.sh                                       128 connections, --sync direct
#   CONNECTIONS=32,512 MODE=fdatasync ROUNDS=3 SECONDS_PER_ROUND=5 bench/edge.sh
#
# Environment variables, with their defaults in parentheses:
#
# CONNECTIONS        open connections, several numbers separated by commas (128); the servers are restarted for each
# MODE               the log's --sync: direct, fdatasync or none (direct)
# ROUNDS             rounds of each server (5)
# SECONDS_PER_ROUND  length of a round (5)
# WARM_UP_SECONDS    load before the rounds that is not measured (3)
# SERVER_CORE        core of the servers (the core that handles the disk's interrupts)
# LOAD_CORE          core of wrk (another one)
# FOREBAY            the daemon (target/release/forebay)
# SCRATCH            directory for the log, on a disk (target/edge); the script removes what it writes
#
# The benchmark uses loopback only. All programs are bounded in time, and stopped by their process ids.
set -euo pipefail
export LC_ALL=C

cd "$(dirname "$0")/.."

CONNECTIONS=${CONNECTIONS:-128}
MODE=${MODE:-direct}
ROUNDS=${ROUNDS:-5}
SECONDS_PER_ROUND=${SECONDS_PER_ROUND:-5}
WARM_UP_SECONDS=${WARM_UP_SECONDS:-3}
FOREBAY=${FOREBAY:-target/release/forebay}
SCRATCH=${SCRATCH:-target/edge}

nginx_pid=''

# shellcheck source=bench/common.sh
source bench/common.sh
# shellcheck source=bench/cores.sh
source bench/cores.sh
# shellcheck source=bench/server.sh
source bench/server.sh
# shellcheck source=bench/rounds.sh
source bench/rounds.sh

# ---- the servers -------------------------------------------------------------------------------------------------

clean_up() {
  [ -z "$nginx_pid" ] || stop_pid "$nginx_pid"
  clean_up_forebay
}

start_nginx() {
  local nginx
  nginx=$(command -v nginx || echo /usr/sbin/nginx)
  nginx_port=$(free_port)
  mkdir -p "$scratch/nginx/temp"
  # No log, no limit on the age or requests of a connection, and one worker because there is one core.
  cat >"$scratch/nginx/nginx.conf" <<CONF
daemon off;
worker_processes 1;
worker_rlimit_nofile $((CONNECTIONS + 512));
pid $scratch/nginx/nginx.pid;
error_log stderr error;
events {
  use epoll;
  worker_connections $((CONNECTIONS + 256));
  multi_accept on;
}
http {
  access_log off;
  server_tokens off;
  sendfile on;
  tcp_nopush off;
  tcp_nodelay on;
  keepalive_requests 100000000;
  keepalive_timeout 1h;
  keepalive_time 24h;
  client_body_buffer_size 16k;
  client_body_temp_path $scratch/nginx/temp/body;
  proxy_temp_path $scratch/nginx/temp/proxy;
  fastcgi_temp_path $scratch/nginx/temp/fastcgi;
  uwsgi_temp_path $scratch/nginx/temp/uwsgi;
  scgi_temp_path $scratch/nginx/temp/scgi;
  server {
    listen 127.0.0.1:$nginx_port reuseport backlog=4096;
    location / { return 204; }
  }
}
CONF
  taskset -c "$SERVER_CORE" "$nginx" -e stderr -p "$scratch/nginx" -c "$scratch/nginx/nginx.conf" \
    >"$scratch/nginx.log" 2>&1 &
  nginx_pid=$!
  await_server nginx "$nginx_pid" "$nginx_port" 204 "$scratch/nginx.log"
}

# ---- the report ---------------------------------------------------------------------------------------------------

# shellcheck disable=SC2016 # the backquotes are Markdown
print_report() {
  local model command
  model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
  command="CONNECTIONS=$CONNECTIONS MODE=$MODE ROUNDS=$ROUNDS SECONDS_PER_ROUND=$SECONDS_PER_ROUND bench/edge.sh"
  printf '`%s`, %s\n\n' "$command" "$(date -u +%Y-%m-%d)"
  printf '%s cores of %s, Linux %s, log on %s, %s, %s.\n' "$(nproc --all)" "${model:-an unnamed processor}" "$(uname -r)" \
    "$(file_system)" "$(nginx_version)" "$(wrk -v 2>&1 | sed -n '1s/ \[.*//p')"
  printf 'The servers on core %s, the load on core %s, %s connections, %s rounds of %s s each in turn; medians.\n\n' \
    "$SERVER_CORE" "$LOAD_CORE" "$CONNECTIONS" "$ROUNDS" "$SECONDS_PER_ROUND"
  head_row server
  row nginx 'nginx, `return 204`'
  row forebay "forebay, \`--sync $MODE\`, without PostgreSQL"
  printf '\nOther processes used at most %s %% of a core during a round' \
    "$(cut -d' ' -f6 "$scratch/nginx.rounds" "$scratch/forebay.rounds" | sort -n | tail -n 1)"
  printf ' (if above 10: repeat on an idle machine). If wrk uses 100 %% of its core, the server could do more.\n'
  printf '\nforebay / nginx: requests/s %s, CPU per request %s; forebay'"'"'s p99 / p50: %s\n' \
    "$(ratio "$(median forebay 1)" "$(median nginx 1)")" "$(ratio "$(median forebay 2)" "$(median nginx 2)")" \
    "$(ratio "$(median forebay 4)" "$(median forebay 3)")"
}

nginx_version() { { nginx -v || /usr/sbin/nginx -v; } 2>&1 | sed -n 's/^nginx version: //p' | head -n 1; }

# Measures the servers and prints the table. CONNECTIONS is a single number here.
compare() {
  local round
  start_nginx
  start_forebay
  say "$CONNECTIONS connections: warming up"
  run_wrk "$nginx_port" "$WARM_UP_SECONDS" >/dev/null
  warm_up_forebay
  for ((round = 1; round <= ROUNDS; round++)); do
    measure nginx "$nginx_pid" "$nginx_port"
    renew_forebay_when_full
    measure forebay "$forebay_pid" "$forebay_port"
  done
  print_report
  stop_forebay
  stop_pid "$nginx_pid"
  nginx_pid=''
  rm "$scratch/nginx.rounds" "$scratch/forebay.rounds"
}

main() {
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  install_missing nginx:nginx-light wrk:wrk curl:curl
  check_rounds
  [ -x "$FOREBAY" ] || die "$FOREBAY is missing: cargo build --release -p forebay"
  make_scratch
  pick_cores
  local separator=''
  for CONNECTIONS in ${CONNECTIONS//,/ }; do
    printf '%s' "$separator"
    compare
    separator=$'\n'
  done
}

main
