//! Compiles the pause container's program, so that no image has to be pulled for it.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=pause.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("pause");
    let arguments = [
        "--edition=2024",
        "-Copt-level=s",
        "-Cpanic=abort",
        "-Crelocation-model=static",
        "-Cstrip=symbols",
        "-Clink-arg=-nostartfiles",
        "-Clink-arg=-nostdlib",
        "-Clink-arg=-static",
        "-Clink-arg=-Wl,--build-id=none",
        "-Ctarget-feature=+crt-static",
        "--crate-type=bin",
        "pause.rs",
        "-o",
    ];
    let status = Command::new(env::var_os("RUSTC").expect("cargo sets it"))
        .args(arguments)
        .arg(&out)
        .arg("--target")
        .arg(env::var_os("TARGET").expect("cargo sets it"))
        .status()
        .expect("the compiler starts");
    assert!(status.success(), "the pause program does not compile");
}
