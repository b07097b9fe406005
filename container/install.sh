#!/bin/sh
# install.sh PREFIX PACKAGES…: candlewick below PREFIX, with the Python environment that streams datasets. Needs Node, npm
# and Python with venv, and no compiler; no package's scripts are run, and no downloads are kept.
set -eu
prefix=$1
shift
downloads=$(mktemp -d)
trap 'rm -rf "$downloads"' EXIT
export npm_config_cache="$downloads" PIP_NO_CACHE_DIR=1
mkdir -p "$prefix"
npm install --prefix "$prefix" --ignore-scripts --no-audit --no-fund "$@"
ln -sfn node_modules/.bin "$prefix/bin"
"$prefix/bin/candlewick" setup --venv "$prefix/venv"
"$prefix/bin/candlewick" --version
CANDLEWICK_PYTHON="$prefix/venv/bin/python" HF_HUB_OFFLINE=1 "$prefix/bin/candlewick" doctor --output "$downloads/runs"
