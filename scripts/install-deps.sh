#!/bin/sh
# Installs the dependencies that cargo does not: PostgreSQL's server binaries, a C compiler, curl, ip and python3. If all are
# there, it does nothing and is fast. The argument `c++` adds a C++ compiler, which fuzzing needs. The argument `tests` adds
# the clients that the tests push with, and Chromium and mkfs.btrfs if they can be installed.
set -eu

# The same as in cluster/src/limits.rs.
MIN_MAJOR=13
MAX_MAJOR=18

say() { printf '%s\n' "install-deps: $*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# Whether the directory $1 contains server binaries of a supported version.
is_usable() {
    [ -x "$1/postgres" ] && [ -x "$1/initdb" ] || return 1
    major=$("$1/postgres" --version 2>/dev/null | sed -n 's/.*(PostgreSQL) \([0-9][0-9]*\).*/\1/p')
    [ -n "$major" ] && [ "$major" -ge "$MIN_MAJOR" ] && [ "$major" -le "$MAX_MAJOR" ]
}

has_postgresql() {
    if [ -n "${FOREBAY_PG_BINDIR:-}" ]; then
        is_usable "$FOREBAY_PG_BINDIR" && return 0
        say "FOREBAY_PG_BINDIR=$FOREBAY_PG_BINDIR has no PostgreSQL $MIN_MAJOR to $MAX_MAJOR; correct or unset it"
        exit 1
    fi
    for dir in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do
        is_usable "$dir" && return 0
    done
    binary=$(command -v postgres 2>/dev/null) || return 1
    is_usable "$(dirname "$(readlink -f "$binary")")"
}

# The missing packages, by Debian's names.
missing_packages() {
    has_postgresql || printf 'postgresql '
    has cc || printf 'gcc libc6-dev '
    has curl || printf 'curl ca-certificates '
    # A test removes a network route.
    has ip || printf 'iproute2 '
    # For scripts/lint-source.py.
    has python3 || printf 'python3 '
    case ${1:-} in
        c++) has c++ || printf 'g++ ' ;;
        tests)
            /usr/bin/python3 -c 'import requests' 2>/dev/null || printf 'python3 python3-requests '
            /usr/bin/python3 -c 'import ensurepip' 2>/dev/null || printf 'python3-venv '
            has node || printf 'nodejs '
            has wrk || printf 'wrk '
            has ab || printf 'apache2-utils '
            ;;
    esac
}

# Restores createcluster.conf: the version from before, or else the package's own, which ucf or dpkg has put beside ours.
restore_cluster_setting() {
    for original in "$CLUSTER_CONF.forebay-saved" "$CLUSTER_CONF.ucf-dist" "$CLUSTER_CONF.dpkg-dist"; do
        if [ -e "$original" ]; then
            mv -f "$original" "$CLUSTER_CONF"
            return
        fi
    done
    rm -f "$CLUSTER_CONF"
}

# Runs as root. The package of a server creates a cluster "main" and starts it, unless createcluster.conf forbids it.
install_packages() {
    CLUSTER_CONF=/etc/postgresql-common/createcluster.conf
    mkdir -p "${CLUSTER_CONF%/*}"
    # If an earlier run was killed, the saved file exists, and the current file is ours.
    if [ -e "$CLUSTER_CONF" ] && [ ! -e "$CLUSTER_CONF.forebay-saved" ] &&
        [ "$(cat "$CLUSTER_CONF")" != "create_main_cluster = false" ]; then
        cp -p "$CLUSTER_CONF" "$CLUSTER_CONF.forebay-saved"
    fi
    echo "create_main_cluster = false" >"$CLUSTER_CONF"
    trap restore_cluster_setting EXIT
    trap 'exit 130' INT TERM HUP
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get -qq -o DPkg::Lock::Timeout=300 update </dev/null
    apt-get -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-confold \
        install "$@" </dev/null
}

if [ "${1:-}" = --as-root ]; then
    shift
    install_packages "$@"
    exit 0
fi

# Installs packages, given as separate arguments.
install_as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        sh "$0" --as-root "$@"
    else
        sudo -- sh "$0" --as-root "$@"
    fi
}

# What only a few tests need, which say so if they do not run: a browser, and a file system that copies on write. Not every
# distribution has packages of them.
install_optional() {
    optional=
    has chromium || optional=chromium
    has mkfs.btrfs || [ -x /usr/sbin/mkfs.btrfs ] || optional="$optional btrfs-progs"
    [ -n "$optional" ] || return 0
    has apt-get && { [ "$(id -u)" -eq 0 ] || has sudo; } || return 0
    for package in $optional; do
        say "installing $package"
        install_as_root "$package" || say "$package cannot be installed; its tests will say that they did not run"
    done
}

missing=$(missing_packages "${1:-}")
if [ -z "$missing" ]; then
    [ "${1:-}" != tests ] || install_optional
    exit 0
fi

if ! has apt-get; then
    say "missing packages (by Debian's names): ${missing% }; there is no apt-get to install them"
    say "install them with your system's package manager; set FOREBAY_PG_BINDIR to PostgreSQL's bin directory"
    exit 1
fi
say "installing $missing"
if [ "$(id -u)" -eq 0 ] || has sudo; then
    # $missing is split into words.
    # shellcheck disable=SC2086
    install_as_root $missing
else
    say "this needs root or sudo; run as root: apt-get install $missing"
    exit 1
fi

missing=$(missing_packages "${1:-}")
if [ -n "$missing" ]; then
    say "still missing after the installation: $missing"
    say "PostgreSQL $MIN_MAJOR to $MAX_MAJOR is needed"
    exit 1
fi
[ "${1:-}" != tests ] || install_optional
