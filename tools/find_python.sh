#!/bin/sh
# Print the first Python on this machine that can hold the project: 3.11 or newer, with venv and pip.
# A name on the path proves nothing (version managers leave stubs for versions that are not there), so each is tried.
for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3 python; do
    if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
        command -v "$name"
        exit 0
    fi
done
echo "No Python 3.11 or newer with venv was found." >&2
echo "On Debian or Ubuntu: apt-get install python3 python3-venv; or name one: make PYTHON=/path/to/python3.11" >&2
exit 1
