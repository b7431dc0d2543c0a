//! Linker flags of the keel binary.

use std::env;
use std::path::Path;

/// The names of functions, as `bench --order` writes them; `KEEL_ORDER` names another file.
const ORDER: &str = "src/functions.order";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEEL_COMMIT");
    println!("cargo::rerun-if-env-changed=KEEL_SYMBOLS");
    println!("cargo::rerun-if-env-changed=KEEL_ORDER");
    let order = env::var("KEEL_ORDER").unwrap_or_else(|_| ORDER.into());
    println!("cargo::rerun-if-changed={order}");
    let target = |key: &str, value: &str| env::var(key).is_ok_and(|is| is == value);
    let has_glibc = target("CARGO_CFG_TARGET_ENV", "gnu");
    // .cargo/config.toml has Rust's LLD called directly for musl, not by a C compiler.
    let is_direct = env::var("RUSTC_LINKER").is_ok_and(|linker| linker == "rust-lld");
    // GNU ld does not know how to do all of this; by itself Rust links with LLD for one target only.
    let has_lld = is_direct || has_glibc && target("CARGO_CFG_TARGET_ARCH", "x86_64");
    let is_release = target("PROFILE", "release");
    let link = |flag: &str| match is_direct {
        true => println!("cargo::rustc-link-arg-bins={flag}"),
        false => println!("cargo::rustc-link-arg-bins=-Wl,{flag}"),
    };

    if has_glibc {
        // A static position-independent binary relocates itself at each start: packed, the relocations
        // take an eighth of the space (glibc 2.36, binutils 2.38; not with the musl of Rust 1.92).
        link("-z,pack-relative-relocs");
    }
    if is_release && env::var_os("KEEL_SYMBOLS").is_none() {
        // The profile's `strip` is lost for a package with settings of its own.
        link("--strip-all");
    }
    if has_lld {
        // Decoders of many types come out the same: one copy is enough.
        link("--icf=all");
    }
    if is_release && has_lld {
        // What a container's way goes through lies side by side, so that the kernel maps a third of
        // the program, not all of it. Names that a newer compiler makes otherwise do no harm, and no
        // good: `make order` writes the file anew, and `make test` looks into the map for them.
        let order = Path::new(env!("CARGO_MANIFEST_DIR")).join(order);
        link(&format!("--symbol-ordering-file={}", order.display()));
        link("--no-warn-symbol-ordering");
        let map = env::var("OUT_DIR").expect("cargo sets it");
        link("--no-demangle");
        link(&format!("-Map={map}/keel.map"));
    }
}
