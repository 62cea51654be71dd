//! Builds what is loaded elsewhere, as relocatable objects that hv-shim embeds: the payload for Xen, and the programs for
//! the BPF machine of a KVM host's kernel.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let payload = manifest.join("xen-payload");
    for watched in
        ["xen-payload/src", "xen-payload/Cargo.toml", "xen-payload/payload.lds", "sampler/src", "abi/src"]
    {
        println!("cargo::rerun-if-changed={}", manifest.join(watched).display());
    }
    let archive = compile(&payload, &out.join("xen-payload"));
    run(Command::new("ld")
        .args(["-r", "--build-id=sha1", "-u", "xenoscope_enter_postapply", "-T"])
        .arg(payload.join("payload.lds"))
        .arg("-o")
        .arg(out.join("xen-payload.o"))
        .arg(archive));
    compile_bpf(&manifest.join("bpf"), &out);
}

/// Compiles the BPF programs. It takes clang; without, guests' registers can't be read, and the program says so: what is
/// embedded then is empty.
fn compile_bpf(sources: &Path, out: &Path) {
    println!("cargo::rerun-if-changed={}", sources.display());
    println!("cargo::rerun-if-env-changed=XENOSCOPE_CLANG");
    let clang = env::var_os("XENOSCOPE_CLANG").unwrap_or_else(|| "clang".into());
    for name in ["capture", "peek", "exit", "entry"] {
        let object = out.join(format!("{name}.bpf.o"));
        let flags = [
            "-target",
            "bpf",
            "-mcpu=v3",
            "-O2",
            "-ffreestanding",
            "-nostdinc",
            "-Wall",
            "-Wextra",
            "-Werror",
        ];
        let mut command = Command::new(&clang);
        command.args(flags).arg("-c").arg(sources.join(format!("{name}.bpf.c"))).arg("-o").arg(&object);
        match command.status() {
            Ok(status) => assert!(status.success(), "a BPF program can't be compiled\n{command:?}"),
            Err(error) => {
                println!(
                    "cargo::warning=built without BPF programs, for KVM's guests: {clang:?} can't be run: {error}"
                );
                // As long as this is not there, it is looked for again.
                println!("cargo::rerun-if-changed=/usr/bin/clang");
                fs::write(&object, []).expect("the folder for what is built can be written to");
            }
        }
    }
}

/// Compiles the payload's crate. It has a target and a profile of its own, which a dependency can't have.
fn compile(payload: &Path, target_dir: &Path) -> PathBuf {
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    // What was asked for the host's crates (flags, wrappers such as clippy's, another target) is not for this one.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_") && name != "CARGO_HOME"
            || name.starts_with("RUSTC")
            || name.contains("RUSTFLAGS")
        {
            cargo.env_remove(&*name);
        }
    }
    // Relative addresses only, and no jump tables: they are jumped through by indirect branches, which a host with
    // CET-IBT traps and which speculation can be led astray on.
    let flags = ["-Crelocation-model=pic", "-Cjump-tables=no"].join("\u{1f}");
    run(cargo
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--target",
            "x86_64-unknown-none",
            "--manifest-path",
        ])
        .arg(payload.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags));
    target_dir.join("x86_64-unknown-none/release/libxen_payload.a")
}

fn run(command: &mut Command) {
    let status =
        command.status().unwrap_or_else(|error| panic!("{:?} can't be run: {error}", command.get_program()));
    assert!(
        status.success(),
        "building the Xen payload failed; if the target is missing: rustup target add x86_64-unknown-none\n{command:?}"
    );
}
