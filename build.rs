//! Linker flags of the keel binary.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEEL_COMMIT");
    // A static position-independent binary relocates itself at each start: packed, the relocations
    // take an eighth of the space (glibc 2.36, binutils 2.38).
    println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // The profile's `strip` is lost for a package with settings of its own.
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
    }
    // Decoders of many types come out the same: one copy is enough. GNU ld does not know how; Rust
    // links with LLD on this architecture.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64") {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
