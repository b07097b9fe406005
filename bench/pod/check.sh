#!/bin/sh
# Unpacks what lies beside it and checks what a user does on this machine's GPU; see check.mjs.
set -e
here=$(cd "$(dirname "$0")" && pwd)
inside=$here/unpacked
if [ ! -e "$inside/complete" ]; then
  mkdir -p "$inside"
  tar -xJf "$here/pod.tar.xz" -C "$inside" || python3 -m tarfile -e "$here/pod.tar.xz" "$inside"
  touch "$inside/complete"
fi
exec "$inside/node" "$inside/check.mjs" "$@"
