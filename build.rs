//! Linker flags of the keel binary.

use std::env;
use std::path::{Path, PathBuf};

/// The names of functions, as `bench --order` writes them; `KEEL_ORDER` names another file.
const ORDER: &str = "src/functions.order";

/// Where Debian's musl-dev has musl; `KEEL_MUSL` names another directory, or none if it is empty.
const MUSL: &str = "/usr/lib/x86_64-linux-musl";

/// Names that Rust has of glibc and musl does not have since 1.2.4, as its offsets have 64 bits always.
const WITH_64_BITS: &[&str] = &[
    "fstat", "fstatat", "fstatfs", "lseek", "lstat", "mmap", "openat", "readdir", "sendfile",
    "stat", "statfs",
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEEL_COMMIT");
    println!("cargo::rerun-if-env-changed=KEEL_SYMBOLS");
    println!("cargo::rerun-if-env-changed=KEEL_ORDER");
    println!("cargo::rerun-if-env-changed=KEEL_MUSL");
    println!("cargo::rustc-check-cfg=cfg(keel_musl)");
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

    let musl = musl().filter(|_| has_glibc && has_lld);
    if let Some(musl) = &musl {
        // musl in glibc's place, whose start-up takes longer than all of `keel state` in a virtual
        // machine (docs/performance.md). Both have the layouts of the kernel and of the processor's
        // ABI, which integration/tests/musl.rs compares for all that keel calls.
        println!("cargo::rustc-cfg=keel_musl");
        let musl = musl.display();
        for flag in ["-nostartfiles", "-nodefaultlibs", &format!("-L{musl}")] {
            println!("cargo::rustc-link-arg-bins={flag}");
        }
        for start in ["rcrt1.o", "crti.o", "crtn.o"] {
            println!("cargo::rustc-link-arg-bins={musl}/{start}");
        }
        for name in WITH_64_BITS {
            link(&format!("--defsym={name}64={name}"));
        }
    } else if has_glibc {
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
        link("--cref");
    }
}

/// The directory of a static musl with which a Rust made for glibc can be linked.
fn musl() -> Option<PathBuf> {
    let dir: PathBuf = env::var_os("KEEL_MUSL")
        .unwrap_or_else(|| MUSL.into())
        .into();
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|all| all.split(',').any(|it| it == "crt-static"));
    let has = |file| dir.join(file).exists();
    let usable = is_static && has("libc.a") && has("rcrt1.o");
    if usable {
        // Of a file that is not there, cargo says it has changed, each time.
        println!("cargo::rerun-if-changed={}", dir.join("libc.a").display());
    }
    usable.then_some(dir)
}
