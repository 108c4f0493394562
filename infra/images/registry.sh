#!/bin/bash
# Serves the archives of build.sh from Debian's docker-registry on loopback, for real pulls:
#   infra/images/registry.sh DIR [ADDRESS]        (default address: 127.0.0.1:5000)
# Runs in the foreground until it is told to stop; prints "ready" when every image can be pulled.
# For containerd: a directory certs.d/registry.slipway.test/ with the hosts.toml that --hosts prints.
set -euo pipefail
if [ "${1:-}" = --hosts ]; then
    printf 'server = "http://%s"\n[host."http://%s"]\n  capabilities = ["pull", "resolve"]\n' "${2:-127.0.0.1:5000}" "${2:-127.0.0.1:5000}"
    exit
fi
dir=$(cd "$1" && pwd)
address=${2:-127.0.0.1:5000}
work=$(mktemp -d)
cat >"$work/config.yml" <<YAML
version: 0.1
log: {level: warn}
storage:
  filesystem: {rootdirectory: $work/data}
  delete: {enabled: true}
http: {addr: "$address"}
YAML
docker-registry serve "$work/config.yml" >"$work/log" 2>&1 &
server=$!
trap 'kill $server 2>/dev/null; wait $server 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 0' TERM INT
for _ in $(seq 100); do
    if (exec 3<>"/dev/tcp/${address%:*}/${address##*:}") 2>/dev/null; then break; fi
    kill -0 $server 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done
for archive in "$dir"/*.tar; do
    name=$(basename "$archive" .tar)
    tag=${name##*-}
    skopeo copy --quiet --insecure-policy --dest-tls-verify=false "oci-archive:$archive:$tag" "docker://$address/${name%-*}:$tag"
done
echo ready
wait $server
