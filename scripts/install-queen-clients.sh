#!/bin/sh
# Installs Queen's published Python clients, each into a Python environment of its own below the directory that is the argument.
# They show that consumers of both generations work unchanged. If a client is there, the script does nothing for it and is fast.
set -eu

for version in 0.15.0 2.6.0; do
    dir=$1/queen-$version
    if [ "$("$dir/bin/python" -c 'import importlib.metadata as m; print(m.version("queen-mq"))' 2>/dev/null)" = "$version" ]; then
        continue
    fi
    echo "install-queen-clients: installing queen-mq $version into $dir" >&2
    rm -rf "$dir"
    /usr/bin/python3 -m venv "$dir"
    "$dir/bin/pip" install --quiet --disable-pip-version-check --no-input "queen-mq==$version"
done
