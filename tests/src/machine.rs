//! A virtualization host that runs in QEMU and takes orders.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::consoles::Serial;
use crate::control::{Order, Report};
use crate::cpus;
use crate::executed::{self, Executed};
use crate::images::{Boot, Images};
use crate::interrupt::Interrupt;
use crate::qemu::Qemu;
use crate::qmp::Qmp;
use crate::scenario::{HypervisorKind, Scenario};

const CONTROL: &str = "control.sock";
const QMP: &str = "qmp.sock";

/// How often the signs that no report will come are looked for.
const LOOK_ROUND: Duration = Duration::from_millis(200);

/// Why there is nothing more to be expected, if QEMU has ended.
pub(crate) const ENDED: &str = "the machine has ended";

/// A running machine.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Qemu,
    control: UnixStream,
    reports: Receiver<Report>,
    serial: Serial,
    interrupt: Interrupt,
    /// Where it is counted what the CPUs execute.
    counts: Option<PathBuf>,
    hypervisor: HypervisorKind,
    cpus: u32,
    lost: bool,
}

/// Why no report came.
#[derive(Debug)]
pub(crate) enum Silence {
    /// The time was up, and the machine lives.
    Late,
    /// There is no machine any more that could report, or it is to be ended.
    Over(anyhow::Error),
}

impl Machine {
    /// Boots a scenario's machine. QEMU's own files go to `folder`; `out` is shared with its control domain.
    pub(crate) fn boot(scenario: &Scenario, images: &Images, folder: &Path, out: &Path) -> Result<Machine> {
        let interrupt = Interrupt::watch()?;
        let serial = Serial::new(&out.join("console"));
        let mut qemu = Qemu::start_program(
            folder,
            &images.emulator.program,
            arguments(scenario, images, serial.path(), out)?,
        )?;
        let control = qemu.connect(CONTROL)?;
        let lines = BufReader::new(control.try_clone()?).lines();
        let (sender, reports) = mpsc::channel();
        // Ends with QEMU, which closes the socket.
        thread::spawn(move || {
            for report in lines.map_while(Result::ok).filter_map(|line| Report::parse(&line)) {
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
        let counts = images.plugin.as_ref().map(|_| folder.to_owned());
        let (hypervisor, cpus) = (scenario.hypervisor.kind, scenario.machine.cpus);
        Ok(Machine { qemu, control, reports, serial, interrupt, counts, hypervisor, cpus, lost: false })
    }

    /// Gives the control domain an order.
    pub(crate) fn order(&mut self, order: Order<'_>) -> Result<()> {
        writeln!(self.control, "{order}").context("the machine takes no orders any more")
    }

    /// Waits for the control domain's next report.
    pub(crate) fn report(&mut self, deadline: Instant) -> Result<Report, Silence> {
        loop {
            let sign = match self.reports.recv_timeout(LOOK_ROUND) {
                Ok(report) => return Ok(report),
                Err(RecvTimeoutError::Timeout) => self.look_round(),
                Err(RecvTimeoutError::Disconnected) => {
                    Err(anyhow::anyhow!("{ENDED}; QEMU: {}", self.qemu.complaints()))
                }
            };
            if let Err(error) = sign {
                self.lost = true;
                return Err(Silence::Over(error));
            }
            if Instant::now() > deadline {
                return Err(Silence::Late);
            }
        }
    }

    /// What each CPU has executed so far; nothing where that is not counted.
    pub(crate) fn executed(&self) -> Result<Vec<Executed>> {
        self.counts.as_deref().map_or(Ok(Vec::new()), executed::read)
    }

    /// Whether it makes no sense to expect anything of the machine any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// A new connection to QEMU's machine protocol.
    pub(crate) fn qmp(&mut self) -> Result<UnixStream> {
        self.qemu.connect(QMP)
    }

    /// What the CPUs are at, for people.
    pub(crate) fn cpus(&mut self) -> Result<String> {
        cpus::dump(&mut Qmp::open(self.qmp()?)?, self.cpus)
    }

    /// The CPU, and a word for it, that the emulator keeps from its hypervisor, as far as that can be told.
    pub(crate) fn stuck_cpu(&mut self) -> Result<Option<String>> {
        let hypervisor = self.hypervisor;
        cpus::stuck(&mut Qmp::open(self.qmp()?)?, self.cpus, hypervisor)
    }

    /// Has the control domain switch the machine off, or ends it when it does not.
    pub(crate) fn end(mut self) {
        if !self.lost && self.order(Order::End).is_ok() {
            // Whether it went by itself makes no difference: dropping QEMU ends it.
            let _ = self.qemu.wait(Duration::from_secs(10));
        }
    }

    fn look_round(&mut self) -> Result<()> {
        if self.interrupt.arrived() {
            bail!("interrupted");
        }
        if let Some(words) = self.serial.last_words()? {
            bail!("the host has crashed: {words}");
        }
        Ok(())
    }
}

fn arguments(scenario: &Scenario, images: &Images, serial: &Path, out: &Path) -> Result<Vec<String>> {
    let machine = &scenario.machine;
    let options = [
        ("-cpu", machine.cpu.clone()),
        ("-smp", machine.cpus.to_string()),
        ("-m", machine.memory_mib.to_string()),
        ("-chardev", format!("file,id=serial,path={}", escaped(serial)?)),
        ("-serial", "chardev:serial".to_owned()),
        ("-qmp", format!("unix:{QMP},server=on,wait=off")),
        ("-chardev", format!("socket,id=control,path={CONTROL},server=on,wait=off")),
        ("-device", "virtio-serial-pci".to_owned()),
        ("-device", "virtserialport,chardev=control,name=xenoscope.lab".to_owned()),
        // Without it there are no random numbers for seconds, and xl waits for them to make up a guest's UUID.
        ("-device", "virtio-rng-pci".to_owned()),
        ("-fsdev", format!("local,id=out,path={},security_model=none", escaped(out)?)),
        ("-device", "virtio-9p-pci,fsdev=out,mount_tag=share".to_owned()),
    ];
    let disks = images
        .disks
        .iter()
        .map(|disk| Ok(("-drive", format!("file={},format=raw,if=virtio", escaped(disk)?))));
    // While all CPUs sleep, time goes on at its own pace.
    let icount = machine.icount.map(|shift| Ok(("-icount", format!("shift={shift},sleep=on"))));
    let plugin = images.plugin.as_ref();
    let plugin = plugin.map(|plugin| Ok(("-plugin", executed::argument(&escaped(plugin)?, machine.cpus))));
    let options = boot(scenario, &images.boot)?.into_iter().chain(options).map(Ok);
    let options = options.chain(disks).chain(icount).chain(plugin);
    let options = options.collect::<Result<Vec<_>>>()?;
    Ok(options.into_iter().flat_map(|(option, value)| [option.to_owned(), value]).collect())
}

/// What QEMU loads, and what that is told.
fn boot(scenario: &Scenario, boot: &Boot) -> Result<[(&'static str, String); 3]> {
    match boot {
        Boot::Xen { hypervisor, kernel, initrd } => {
            let (dom0, xen_args) = (&scenario.dom0, &scenario.hypervisor.args);
            let modules = format!(
                "{} console=hvc0 {},{}",
                escaped(kernel)?,
                dom0.kernel_args.replace(',', ",,"),
                escaped(initrd)?
            );
            let append = format!(
                "console=com1 com1=115200 loglvl=all guest_loglvl=all noreboot \
                 dom0_mem={memory}M,max:{memory}M dom0_max_vcpus={vcpus} {xen_args}",
                memory = dom0.memory_mib,
                vcpus = dom0.vcpus
            );
            Ok([
                ("-kernel", text(hypervisor)?.to_owned()),
                ("-initrd", modules),
                ("-append", append.trim_end().to_owned()),
            ])
        }
        Boot::Linux { kernel, initrd } => Ok([
            ("-kernel", text(kernel)?.to_owned()),
            ("-initrd", text(initrd)?.to_owned()),
            ("-append", format!("console=ttyS0 {}", scenario.host.kernel_args).trim_end().to_owned()),
        ]),
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// QEMU separates its options by commas, and takes a comma that is doubled for one in a value.
fn escaped(path: &Path) -> Result<String> {
    Ok(text(path)?.replace(',', ",,"))
}
