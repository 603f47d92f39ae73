#!/bin/sh
# Installs schemathesis into a Python environment of its own. Schemathesis checks the daemon's responses against
# docs/openapi.yaml. The argument is the directory of the environment. If schemathesis is there, the script does nothing and
# is fast.
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
