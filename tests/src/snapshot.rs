//! A plain Linux guest in QEMU, stopped at one moment: its memory, its processors, and what it says of itself.
//!
//! This is what looking into guests is tested with. No hypervisor is between the guest and QEMU, and the addresses of
//! its kernel are as random as they are in the field.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cache::Cache;
use crate::command;
use crate::disk;
use crate::emulator::Emulator;
use crate::files;
use crate::kernels::Kernel;
use crate::libraries;
use crate::packages::PackageSet;
use crate::progress::say;
use crate::qemu::Qemu;
use crate::qmp::Qmp;
use crate::scenario::Release;
use crate::tree::Tree;

/// What the guest writes its truth to; only what is written takes space.
const TRUTH_BYTES: u64 = 128 << 20;
const BOOT_LIMIT: Duration = Duration::from_secs(150);
/// How often the guest is stopped to read its registers, in the end and while it is busy.
const ROUNDS: u32 = 80;
const FEW_ROUNDS: u32 = 5;
const BETWEEN_ROUNDS: Duration = Duration::from_millis(20);
/// The file in a snapshot's folder that tells what is in it.
const INDEX: &str = "snapshot.json";
/// Said by the guest when its processes begin to come and go.
const BUSY: &str = "lab: busy";
/// Said by the guest when all is written down, before its processes.
const READY: &str = "lab: processes ";

/// A guest to be booted.
#[derive(Debug, Clone)]
pub struct PlainGuest {
    /// Whose kernel it is.
    pub release: Release,
    /// QEMU's CPU model.
    pub cpu: &'static str,
    /// Its memory. What exceeds 3.5 GiB lies partly above 4 GiB.
    pub memory_mib: u32,
    /// Added to its kernel's command line.
    pub kernel_args: &'static str,
}

/// The registers of a CPU at a moment when the guest was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// Which CPU.
    pub cpu: u32,
    /// The privilege level: 0 for the kernel, 3 for processes.
    pub cpl: u8,
    /// The instruction pointer.
    pub rip: u64,
    /// The root of the page tables, with its control bits.
    pub cr3: u64,
    /// Those by which callers are found: stack pointer, frame pointer, then RBX and R12 to R15.
    pub sp: u64,
    /// See `sp`.
    pub bp: u64,
    /// See `sp`.
    pub bx: u64,
    /// See `sp`.
    pub r12_to_r15: [u64; 4],
}

/// What a guest was like when it was stopped for good.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// The file with all of its memory: what is below 3 GiB (all of it, if that is less than 3.5 GiB) and then what
    /// is above 4 GiB.
    pub memory: PathBuf,
    /// What its CPUs did before, a while apart.
    pub registers: Vec<Registers>,
    /// The processes that were there in the end.
    pub processes: Vec<u32>,
    /// A folder with what the guest wrote down: `kallsyms`, `modules`, `release`, `processes/PID/{maps,cgroup}`, and
    /// `processes/PID/task/TID` with the name of each thread.
    pub truth: PathBuf,
    /// A folder with the files that processes run from, under the names that they have in the guest; what is there
    /// below `/overlay` is the same as below `/disk`.
    pub files: PathBuf,
}

impl Snapshot {
    /// Boots the guest, lets it write down what it knows of itself and stops it. All that comes of it is put into `out`,
    /// and replaces what was there.
    ///
    /// `meanwhile` is called when the guest runs and its processes come and go, with the file of its memory and registers
    /// of that time; it has a few seconds. `stopped` is called each time that the guest is stopped later on.
    pub fn take(
        guest: &PlainGuest,
        out: &Path,
        meanwhile: impl FnOnce(&Path, &[Registers]),
        mut stopped: impl FnMut(&Path, &[Registers]),
    ) -> Result<Snapshot> {
        if out.exists() {
            fs::remove_dir_all(out)?;
        }
        fs::create_dir_all(out)?;
        let out = out.canonicalize()?;
        let emulator = {
            let cache = Cache::open()?;
            build(guest, &cache, &out)?;
            // In QEMU 7.2, which is Debian 12's, the kernel of Debian 13 does not run.
            Emulator::unpacked(&cache, &out)?
        };
        say(format_args!("booting a plain guest with the kernel of {}", guest.release.name()));
        // Sockets have short names only.
        let folder = tempfile::Builder::new().prefix("xenoscope-lab-").tempdir()?;
        for name in ["vmlinuz", "initrd", "disk", "truth.tar"] {
            std::os::unix::fs::symlink(out.join(name), folder.path().join(name))?;
        }
        let memory = out.join("memory");
        let mut qemu = Qemu::start_program(folder.path(), &emulator.program, arguments(guest, &memory))?;
        let mut qmp = Qmp::open(qemu.connect("qmp")?)?;
        let console = folder.path().join("console.log");
        let said = await_line(&mut qemu, &console, BUSY).and_then(|_| {
            let registers = rounds(&mut qmp, FEW_ROUNDS, |_| {})?;
            qmp.execute("cont", &Value::Null)?;
            meanwhile(&memory, &registers);
            await_line(&mut qemu, &console, READY)
        });
        fs::copy(&console, out.join("console.log"))?;
        let pids = said?;
        let pids = pids.split_ascii_whitespace();
        let processes = pids.filter_map(|path| path.strip_prefix("/proc/")?.parse().ok()).collect();
        let registers = rounds(&mut qmp, ROUNDS, |registers| stopped(&memory, registers))?;
        drop(qemu);

        let truth = out.join("truth");
        fs::create_dir(&truth)?;
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(out.join("truth.tar")).arg("-C").arg(&truth);
        command::stdout(&mut tar, "apt-get install tar")?;
        fs::remove_file(out.join("truth.tar"))?;
        let snapshot = Snapshot { memory, registers, processes, truth, files: out.join("files") };
        fs::write(out.join(INDEX), serde_json::to_vec_pretty(&snapshot)?)?;
        Ok(snapshot)
    }

    /// A snapshot that was taken before.
    pub fn open(out: &Path) -> Result<Snapshot> {
        let index = out.join(INDEX);
        let index = fs::read(&index).with_context(|| format!("cannot read {}", index.display()))?;
        Ok(serde_json::from_slice(&index)?)
    }
}

/// Makes what the guest boots from.
fn build(guest: &PlainGuest, cache: &Cache, out: &Path) -> Result<()> {
    let wanted = ["linux-image-cloud-amd64", "busybox-static", "openssl", "coreutils"].map(str::to_owned);
    let packages = PackageSet::fetch(cache, guest.release, &wanted)?;
    let kernel = Kernel::find(&packages)?;
    fs::copy(&kernel.image, out.join("vmlinuz"))?;

    let program = |name: &str| {
        let place = packages.find(&[&format!("usr/bin/{name}"), &format!("bin/{name}")]);
        place.with_context(|| format!("no package has the program {name}"))
    };
    let mut root = Tree::default();
    root.file("/bin/busybox", 0o755, fs::read(program("busybox")?)?);
    root.link("/bin/sh", "busybox");
    root.file("/init", 0o755, include_str!("init/plain.sh"));
    root.character_device("/dev/console", 5, 1);
    kernel.add_modules(&mut root, &["virtio_pci", "virtio_blk", "ext4", "overlay"])?;
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let compiled = [
        files::program_entry("hot.c", &["-DNAME=alpha"], "/bin/hot"),
        files::program_entry("crowd.c", &[], "/bin/crowd"),
        files::program_entry("syscalls.c", &["-DNAME=calls"], "/bin/calls"),
    ];
    files::add_to(&mut root, &compiled, &sources, cache)?;
    fs::write(out.join("initrd"), root.to_cpio())?;

    let (openssl, sleep) = (program("openssl")?, program("sleep")?);
    let mut tree = Tree::default();
    libraries::add_to(&mut tree, |places| packages.find(places), &[openssl.clone(), sleep.clone()])?;
    tree.file("/usr/bin/openssl", 0o755, fs::read(openssl)?);
    tree.file("/bin/sleep", 0o755, fs::read(sleep)?);
    disk::make_ext4(&tree, &out.join("disk"))?;
    root.write_folder(&out.join("files"))?;
    tree.write_folder(&out.join("files/disk"))?;
    File::create(out.join("truth.tar"))?.set_len(TRUTH_BYTES)?;
    Ok(())
}

fn arguments(guest: &PlainGuest, memory: &Path) -> Vec<String> {
    let PlainGuest { cpu, memory_mib, kernel_args, .. } = guest;
    let backend =
        format!("memory-backend-file,id=ram,size={memory_mib}M,mem-path={},share=on", memory.display());
    let append = format!("console=ttyS0 panic=-1 {kernel_args}");
    let options = [
        ("-machine", "pc,memory-backend=ram"),
        ("-object", &backend),
        ("-m", &memory_mib.to_string()),
        ("-cpu", cpu),
        ("-smp", "2"),
        ("-kernel", "vmlinuz"),
        ("-initrd", "initrd"),
        ("-append", &append),
        ("-drive", "file=disk,format=raw,if=virtio,readonly=on"),
        ("-drive", "file=truth.tar,format=raw,if=virtio"),
        ("-serial", "file:console.log"),
        ("-qmp", "unix:qmp,server=on,wait=off"),
    ];
    options.into_iter().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect()
}

/// Waits for the guest to say a line that begins so, and gives the rest of it.
fn await_line(qemu: &mut Qemu, console: &Path, beginning: &str) -> Result<String> {
    let deadline = Instant::now() + BOOT_LIMIT;
    loop {
        let said = String::from_utf8_lossy(&fs::read(console).unwrap_or_default()).into_owned();
        if let Some((_, line)) = said.split_once(beginning)
            && let Some((rest, _)) = line.split_once('\n')
        {
            return Ok(rest.to_owned());
        }
        if qemu.ended()?.is_some() || Instant::now() > deadline {
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            bail!(
                "the guest does not say `{beginning}`; QEMU: {}; its last lines, reversed: {last:#?}",
                qemu.complaints()
            );
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// Stops the guest again and again to read its registers, in the end for good.
fn rounds(qmp: &mut Qmp, count: u32, mut stopped: impl FnMut(&[Registers])) -> Result<Vec<Registers>> {
    let mut registers = Vec::new();
    for _ in 0..count {
        qmp.execute("cont", &Value::Null)?;
        thread::sleep(BETWEEN_ROUNDS);
        qmp.execute("stop", &Value::Null)?;
        let now = parse_registers(&qmp.monitor("info registers -a")?);
        stopped(&now);
        registers.extend(now);
    }
    if registers.is_empty() {
        bail!("QEMU prints registers in a way that is not known");
    }
    Ok(registers)
}

/// Reads what `info registers -a` prints, a part for each CPU.
fn parse_registers(text: &str) -> Vec<Registers> {
    let cpu = |part: &str| {
        let value = |name: &str| {
            let digits = part.split_once(name)?.1.trim_start();
            let end = digits.find(|digit: char| !digit.is_ascii_hexdigit()).unwrap_or(digits.len());
            u64::from_str_radix(&digits[..end], 16).ok()
        };
        Some(Registers {
            cpu: part.lines().next()?.trim().parse().ok()?,
            cpl: value("CPL=")? as u8,
            rip: value("RIP=")?,
            cr3: value("CR3=")?,
            sp: value("RSP=")?,
            bp: value("RBP=")?,
            bx: value("RBX=")?,
            r12_to_r15: [value("R12=")?, value("R13=")?, value("R14=")?, value("R15=")?],
        })
    };
    text.split("CPU#").filter_map(cpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_read_from_what_qemu_prints() {
        let rest = "RBX=0b RBP=bb RSP=50\nR12=12 R13=13\nR14=14 R15=15\n";
        let text = format!(
            "\nCPU#0\nRAX=0000000000000000 {rest}RIP=ffffffff81000010 RFL=00000246 [---Z-P-] CPL=0 II=0\n\
            CR0=80050033 CR2=0000000000000000 CR3=0000000002a0c003 CR4=000006f0\n\nCPU#1\n{rest}RIP=0000000000401000 \
            RFL=00000246 [---Z-P-] CPL=3 II=0\nCR3=0000000002a0d000\n"
        );
        let registers = |cpu, cpl, rip, cr3| Registers {
            cpu,
            cpl,
            rip,
            cr3,
            sp: 0x50,
            bp: 0xbb,
            bx: 0xb,
            r12_to_r15: [0x12, 0x13, 0x14, 0x15],
        };
        let expected =
            [registers(0, 0, 0xffff_ffff_8100_0010, 0x2a0_c003), registers(1, 3, 0x40_1000, 0x2a0_d000)];
        assert_eq!(parse_registers(&text), expected);
    }
}
