#!/bin/sh
# Installs schemathesis, which holds docs/openapi.yaml against the daemon's answers, into a Python environment of its own.
# Argument: the environment's directory. Does nothing, quickly, where it is there.
set -eu

VERSION=4.32.5
dir=$1

if [ "$("$dir/bin/schemathesis" --version 2>/dev/null)" = "schemathesis, version $VERSION" ]; then
    exit 0
fi
echo "install-schemathesis: installing schemathesis $VERSION into $dir" >&2
rm -rf "$dir"
/usr/bin/python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check --no-input "schemathesis==$VERSION"
