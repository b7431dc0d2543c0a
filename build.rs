//! Linker flags of the keel binary.

use std::env;
use std::path::Path;

/// The names of functions, as `bench --order` writes them.
const ORDER: &str = "src/functions.order";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEEL_COMMIT");
    println!("cargo::rerun-if-env-changed=KEEL_SYMBOLS");
    println!("cargo::rerun-if-changed={ORDER}");
    // A static position-independent binary relocates itself at each start: packed, the relocations
    // take an eighth of the space (glibc 2.36, musl 1.2.4, binutils 2.38). Rust brings musl itself, an
    // older one up to Rust 1.92.
    let has_glibc = env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|libc| libc == "gnu");
    if has_glibc {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // GNU ld does not know how to do the rest; Rust links with LLD for this target.
    let has_lld = has_glibc && env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if is_release && env::var_os("KEEL_SYMBOLS").is_none() {
        // The profile's `strip` is lost for a package with settings of its own.
        println!("cargo::rustc-link-arg-bins=-Wl,--strip-all");
    }
    if has_lld {
        // Decoders of many types come out the same: one copy is enough.
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
    if is_release && has_lld {
        // What a container's way goes through lies side by side, so that the kernel maps a third of
        // the program, not all of it. Names that a newer compiler makes otherwise do no harm, and no
        // good: `make order` writes the file anew, and `make test` looks into the map for them.
        let order = Path::new(env!("CARGO_MANIFEST_DIR")).join(ORDER);
        println!(
            "cargo::rustc-link-arg-bins=-Wl,--symbol-ordering-file={},--no-warn-symbol-ordering",
            order.display()
        );
        let map = env::var("OUT_DIR").expect("cargo sets it");
        println!("cargo::rustc-link-arg-bins=-Wl,--no-demangle,-Map={map}/keel.map");
    }
}
