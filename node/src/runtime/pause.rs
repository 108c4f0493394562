//! The pause image: one static program of our own, packed as an OCI archive, so that a node needs no registry for it.

use serde_json::json;
use sha2::{Digest, Sha256};
use std::fmt::Write;

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The name that containerd's configuration gives as `sandbox_image`. It changes with the program.
pub fn image_name() -> String {
    format!("slipway.local/pause:{}", &hex(PROGRAM)[..12])
}

/// The image as an OCI archive, which `ctr images import` takes.
pub fn archive() -> Vec<u8> {
    oci_archive(&image_name(), &[("pause", 0o755, PROGRAM)], json!({ "Entrypoint": ["/pause"] }))
}

/// An OCI archive with one layer of these files.
pub fn oci_archive(name: &str, files: &[(&str, u32, &[u8])], config: serde_json::Value) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let layer = tar(files);
    let config = json!({
        "architecture": architecture, "os": "linux", "config": config,
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        "history": [{ "created_by": "slipway" }],
    })
    .to_string()
    .into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string()
    .into_bytes();
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    let tag = name.rsplit(':').next().unwrap_or("latest");
    entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    let index = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string().into_bytes();
    let blobs = [&config, &manifest, &layer].map(|blob| (format!("blobs/sha256/{}", hex(blob)), blob));
    let mut all: Vec<(&str, u32, &[u8])> =
        vec![("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", 0o644, &index)];
    all.extend(blobs.iter().map(|(path, blob)| (path.as_str(), 0o644, blob.as_slice())));
    tar(&all)
}

fn descriptor(media_type: &str, blob: &[u8]) -> serde_json::Value {
    json!({ "mediaType": media_type, "digest": digest(blob), "size": blob.len() })
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// A ustar archive; the names are short enough for its plain header.
fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut archive = vec![];
    for (name, mode, bytes) in files {
        let mut header = [0u8; BLOCK];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:07o}"));
        put(108, "0000000");
        put(116, "0000000");
        put(124, &format!("{:011o}", bytes.len()));
        put(136, "00000000000");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar");
        put(263, "00");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}
