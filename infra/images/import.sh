#!/bin/bash
# Imports the archives of build.sh into a containerd:  infra/images/import.sh [DIR] [ctr's flags, such as -a SOCKET]
set -euo pipefail
dir=${1:-$(dirname "$0")/../../target/images}
shift || true
for archive in "$dir"/*.tar; do ctr "$@" -n k8s.io images import "$archive"; done
