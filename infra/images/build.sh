#!/bin/bash
# Builds the sample images as OCI archives, without a registry, a container engine or the internet:
#   infra/images/build.sh [DIR [NAME=PROGRAM ...]]          (default: target/images)
# A PROGRAM becomes the image NAME:1, with the shared libraries that it needs.
# Needs rustc with a C linker, tar, gzip, sha256sum, and for busybox Debian's busybox-static.
# Import them with:  ctr -n k8s.io images import DIR/web-1.tar     (or `infra/images/import.sh DIR`)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(mkdir -p "${1:-$here/../../target/images}" && cd "${1:-$here/../../target/images}" && pwd)
registry=${REGISTRY:-registry.slipway.test}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac

# The same input gives the same bytes, hence the same digests.
pack() { tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --format=ustar -C "$1" -cf "$2" "${@:3}"; }
digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }
# blob FILE: moves it under its digest in the archive, prints the digest
blob() { local d; d=$(digest "$1"); mv "$1" "$work/oci/blobs/sha256/$d"; echo "$d"; }

# image NAME TAG ROOT CONFIG: one archive NAME-TAG.tar of one layer, CONFIG being the `config` of the OCI image
image() {
    local name=$1 tag=$2 root=$3 config=$4 diff layer layer_size conf conf_size manifest manifest_size
    rm -rf "$work/oci" && mkdir -p "$work/oci/blobs/sha256"
    pack "$root" "$work/layer.tar" .
    diff=$(digest "$work/layer.tar")
    gzip -n -f "$work/layer.tar"
    layer_size=$(size "$work/layer.tar.gz") layer=$(blob "$work/layer.tar.gz")
    printf '{"architecture":"%s","os":"linux","config":%s,"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"infra/images/build.sh"}]}' \
        "$arch" "$config" "$diff" >"$work/config"
    conf_size=$(size "$work/config") conf=$(blob "$work/config")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' \
        "$conf" "$conf_size" "$layer" "$layer_size" >"$work/manifest"
    manifest_size=$(size "$work/manifest") manifest=$(blob "$work/manifest")
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
    printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"%s/%s:%s","org.opencontainers.image.ref.name":"%s"}}]}' \
        "$manifest" "$manifest_size" "$arch" "$registry" "$name" "$tag" "$tag" >"$work/oci/index.json"
    pack "$work/oci" "$work/image.tar" oci-layout index.json blobs
    mv "$work/image.tar" "$out/$name-$tag.tar"
    echo "$out/$name-$tag.tar  $registry/$name:$tag  sha256:$manifest"
}

static() { rustc --edition 2024 -O -C panic=abort -C strip=symbols -C target-feature=+crt-static "$@"; }

mkdir -p "$work"/web/{etc,tmp} "$work/pause"
chmod 1777 "$work/web/tmp"
printf 'root:x:0:0:root:/:/\nnobody:x:65534:65534:nobody:/:/\n' >"$work/web/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$work/web/etc/group"
static "$here/web.rs" -o "$work/web/web"
for version in 1 2; do
    image web $version "$work/web" "{\"Entrypoint\":[\"/web\"],\"Env\":[\"PATH=/\",\"VERSION=$version\"],\"ExposedPorts\":{\"8080/tcp\":{}}}"
done

static -C relocation-model=static -C default-linker-libraries=yes "$here/pause.rs" -o "$work/pause/pause"
image pause 1 "$work/pause" '{"Entrypoint":["/pause"],"User":"65535:65535"}'

if busybox=$(command -v busybox); then
    mkdir -p "$work"/busybox/{bin,etc,tmp,root,var,usr/bin,home}
    chmod 1777 "$work/busybox/tmp"
    cp "$work"/web/etc/* "$work/busybox/etc/"
    cp "$busybox" "$work/busybox/bin/busybox"
    # busybox itself, a dynamic one would not start in an image without libraries.
    chroot "$work/busybox" /bin/busybox true 2>/dev/null || { [ "$(id -u)" != 0 ] || { echo "busybox is not static: install busybox-static" >&2; exit 1; }; }
    for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$work/busybox/bin/$applet"; done
    image busybox 1 "$work/busybox" '{"Cmd":["sh"],"Env":["PATH=/bin:/usr/bin"]}'
else
    echo "no busybox here: install busybox-static for the busybox image" >&2
fi

for program in "${@:2}"; do
    name=${program%%=*} file=${program#*=} root=$work/$name
    mkdir -p "$root"/{etc,tmp}
    chmod 1777 "$root/tmp"
    cp "$work"/web/etc/* "$root/etc/"
    strip -o "$root/$name" "$file"
    for library in $(ldd "$file" | grep -o '/[^ ]*'); do install -D "$library" "$root$library"; done
    image "$name" 1 "$root" "{\"Entrypoint\":[\"/$name\"],\"Env\":[\"PATH=/\"]}"
done
