fn main() {
    // The migrations are embedded: without this a new one would go unnoticed.
    println!("cargo:rerun-if-changed=../migrations");
}
