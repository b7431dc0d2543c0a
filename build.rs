//! Linker flags of the keel binary.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEEL_COMMIT");
    // A static position-independent binary relocates itself at each start: packed, the relocations
    // take an eighth of the space (glibc 2.36, binutils 2.38).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
}
