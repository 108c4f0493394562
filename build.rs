//! The dashboard's files are embedded by a macro, which doesn't see when they appear.

fn main() {
    println!("cargo:rerun-if-changed=dashboard/dist");
}
