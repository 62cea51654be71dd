//! The shim's life: what Xen calls when the payload is applied and reverted.

use core::{
    arch::global_asm,
    ptr,
    sync::atomic::{AtomicPtr, AtomicU64, Ordering},
};

use abi::{
    config::Config,
    control::{
        CLOCK_XEN_SYSTEM_TIME, ControlPage, LIST_ENTRIES, LeasePage, MAGIC, PV_MODE_BY_ADDRESS,
        PV_MODE_BY_FLAG, directory::MAX_DATA_PAGES,
    },
    pmu::MAX_EVENTS,
};
use sampler::{
    pmu::Event,
    probe::{self, Layout, Refusal, is_present},
};

use crate::{
    counters, interrupts,
    machine::{self, ThisCpu, stack_top},
    memory, metadata,
    pages::{Access, Page},
    percpu::{self, Cpu, MAX_CPUS},
    xen::address,
};

// Every function that Xen calls through a pointer begins with endbr64, for hosts with CET-IBT. The hook sections
// hold one pointer each; they are written in assembly for the reason given in metadata.rs.
global_asm!(
    ".macro entry name, target",
    ".p2align 4",
    ".globl \\name",
    "\\name:",
    "endbr64",
    "jmp \\target",
    ".endm",
    "entry xenoscope_enter_postapply, xenoscope_postapply",
    "entry xenoscope_enter_unload, xenoscope_unload",
    "entry xenoscope_enter_postrevert, xenoscope_postrevert",
    "entry xenoscope_enter_timer, xenoscope_timer",
    "entry xenoscope_enter_softirq, xenoscope_softirq",
    "entry xenoscope_enter_idle, xenoscope_idle",
    "entry xenoscope_enter_nmi, xenoscope_nmi",
    "entry xenoscope_enter_survey, xenoscope_survey",
    "entry xenoscope_enter_trial, xenoscope_trial",
    "entry xenoscope_enter_end, xenoscope_end",
    "entry xenoscope_enter_nothing, xenoscope_nothing",
    // Never run: its name is what a report shows of samples whose place is not known.
    ".globl xenoscope_overdue",
    "xenoscope_overdue:",
    "ud2",
    // Ends in a jump, not a call: a CPU that is dead never returns, and the payload may be unloaded meanwhile.
    ".p2align 4",
    ".globl xenoscope_enter_dead",
    "xenoscope_enter_dead:",
    "endbr64",
    "sub $8, %rsp",
    "call xenoscope_dead",
    "add $8, %rsp",
    "jmp __x86_indirect_thunk_rax",
    ".section .livepatch.hooks.postapply, \"a\", @progbits",
    ".quad xenoscope_enter_postapply",
    ".section .livepatch.hooks.unload, \"a\", @progbits",
    ".quad xenoscope_enter_unload",
    ".section .livepatch.hooks.postrevert, \"a\", @progbits",
    ".quad xenoscope_enter_postrevert",
    // The build ids that Xen compares before it loads anything: zeros until the loader fills them in.
    ".macro build_id section",
    ".section \\section, \"a\", @note",
    ".p2align 2",
    ".long 4, 20, 3",
    ".asciz \"GNU\"",
    ".fill 20, 1, 0",
    ".endm",
    "build_id .livepatch.depends",
    "build_id .livepatch.xen_depends",
    // Settings, filled in by the loader.
    ".data",
    ".p2align 3",
    ".globl xenoscope_config",
    "xenoscope_config: .fill {config_words}, 8, 0",
    ".text",
    config_words = const Config::WORDS,
    options(att_syntax),
);

/// 50 kHz on every CPU is more than anybody can mean.
const SHORTEST_PERIOD_NS: u64 = 20_000;

unsafe extern "C" {
    static xenoscope_config: Config;
    /// Where the linker script puts all code together.
    static xenoscope_text: u8;
}

/// What the loader asked for.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    // SAFETY: plain words in our data that nobody writes after the upload. What they are there is unknown to the
    // compiler: they are defined in assembly.
    unsafe { &*(address!(of xenoscope_config) as *const Config) }
}

/// What this hypervisor looks like: written once, before any interrupt comes here.
static mut LAYOUT: Layout = Layout {
    vcpu_domain: 0,
    current_below_top: 0,
    frame_below_top: 0,
    vcpu_flags: None,
    svm: None,
    vmx_exit: probe::CodeRange { start: 0, end: 0 },
    timer_vector: 0,
    code: [probe::CodeRange { start: 0, end: 0 }; 2],
};
static CONTROL: AtomicPtr<ControlPage> = AtomicPtr::new(ptr::null_mut());
static LEASE: AtomicPtr<LeasePage> = AtomicPtr::new(ptr::null_mut());
/// The list pages, in the order in which they lead to each other.
static LISTS: [AtomicPtr<u64>; MAX_CPUS.div_ceil(LIST_ENTRIES)] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS.div_ceil(LIST_ENTRIES)];
/// How many CPUs were looked at.
static CPUS_SEEN: AtomicU64 = AtomicU64::new(0);

#[inline(always)]
pub(crate) fn layout() -> &'static Layout {
    let layout = &raw const LAYOUT;
    // SAFETY: written by `start` only, before the handlers are installed.
    unsafe { &*layout }
}

#[inline(always)]
pub(crate) fn lease() -> &'static LeasePage {
    // SAFETY: set by `start` before the handlers are installed, freed after they are gone.
    unsafe { &*LEASE.load(Ordering::Relaxed) }
}

/// After all CPUs have gone on: interrupts are on, allocation is allowed.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_postapply() {
    match start() {
        Ok(control) => metadata::tell_control(control.mfn()),
        Err(refusal) => {
            release();
            metadata::tell_refusal(refusal);
        }
    }
}

/// While all CPUs stand still, interrupts off: none of them is in our code, nor will come back to it.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_unload() {
    counters::stop_sampling();
    interrupts::restore(layout());
}

/// After the revert: gives the memory back.
#[unsafe(no_mangle)]
extern "C" fn xenoscope_postrevert() {
    counters::end();
    release();
    metadata::tell_reverted();
}

/// Probes, allocates, and takes the handlers over. On failure `release` undoes what was done.
fn start() -> Result<Page, Refusal> {
    let config = config();
    if config.version != abi::VERSION
        || !is_ring_size(config.ring_pages)
        || config.period_ns < SHORTEST_PERIOD_NS
        || !are_possible(config)
    {
        return Err(Refusal::Config);
    }
    let symbols = machine::symbols();
    let cpus = count_cpus()?;
    let layout = probe::layout(&ThisCpu, &symbols, stack_top(), cpus)?;
    // SAFETY: nobody reads it yet.
    unsafe { LAYOUT = layout };
    CPUS_SEEN.store(cpus, Ordering::Relaxed);

    let control_page = Page::shared(Access::ReadOnly)?;
    let control: *mut ControlPage = control_page.cast();
    CONTROL.store(control, Ordering::Relaxed);
    let lease = Page::shared(Access::Writable)?;
    LEASE.store(lease.cast(), Ordering::Relaxed);

    let mut rings = 0;
    let (mut first_list, mut last_list) = (0, ptr::null_mut::<u64>());
    // CPUs that are offline now too: whoever comes online finds his state.
    for number in (0..cpus).filter(|&cpu| is_present(&ThisCpu, &symbols, cpu)) {
        if rings % LIST_ENTRIES == 0 {
            let list = Page::shared(Access::ReadOnly)?;
            LISTS[rings / LIST_ENTRIES].store(list.words(), Ordering::Relaxed);
            if last_list.is_null() {
                first_list = list.mfn();
            } else {
                // SAFETY: the last word of a page that is ours.
                unsafe { *last_list.add(LIST_ENTRIES) = list.mfn() };
            }
            last_list = list.words();
        }
        let cpu = Cpu::allocate(number)?;
        percpu::publish(number, cpu);
        // SAFETY: the index is inside of the page; the CPU's state was just allocated.
        unsafe { *last_list.add(rings % LIST_ENTRIES) = (*cpu).directory_mfn() };
        rings += 1;
    }

    // SAFETY: the page is ours and lives until `release`; its fields are atomics.
    let control = unsafe { &*control };
    control.version.store(abi::VERSION, Ordering::Relaxed);
    control.rings.store(rings as u64, Ordering::Relaxed);
    control.list.store(first_list, Ordering::Relaxed);
    control.lease.store(lease.mfn(), Ordering::Relaxed);
    control.clock.store(CLOCK_XEN_SYSTEM_TIME, Ordering::Relaxed);
    control.period_ns.store(config.period_ns, Ordering::Relaxed);
    let pv_mode = if layout.vcpu_flags.is_some() { PV_MODE_BY_FLAG } else { PV_MODE_BY_ADDRESS };
    control.pv_mode.store(pv_mode, Ordering::Relaxed);
    control.call_graph.store(memory::begin(control_page), Ordering::Relaxed);
    match counters::begin(cpus) {
        Ok(()) => {
            let slices = counters::slices();
            control.slices.iter().zip(slices).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
        }
        Err(why) => control.pmu.store(why as u64, Ordering::Relaxed),
    }
    control.text.store(address!(of xenoscope_text), Ordering::Relaxed);
    control.started.store(interrupts::install(&layout, &symbols, cpus), Ordering::Relaxed);
    control.magic.store(MAGIC, Ordering::Release);
    Ok(control_page)
}

/// Gives back whatever `start` took. No CPU is in our code: the handlers were never installed, or are gone since
/// all CPUs stood still.
fn release() {
    for number in 0..CPUS_SEEN.load(Ordering::Relaxed) {
        let cpu = percpu::retire(number);
        if !cpu.is_null() {
            // SAFETY: allocated by `start`, and see above.
            unsafe { Cpu::free(cpu) };
        }
    }
    let free = |page: *mut u64| {
        if !page.is_null() {
            Page::of(page).free_shared();
        }
    };
    free(CONTROL.swap(ptr::null_mut(), Ordering::Relaxed).cast());
    free(LEASE.swap(ptr::null_mut(), Ordering::Relaxed).cast());
    for list in &LISTS {
        free(list.swap(ptr::null_mut(), Ordering::Relaxed));
    }
}

/// Whether all events can be counted on some processor.
fn are_possible(config: &Config) -> bool {
    let mut events = config.event.iter().take(config.events as usize);
    config.events <= MAX_EVENTS as u64 && events.all(|event| Event::of(event).is_some())
}

fn is_ring_size(pages: u64) -> bool {
    pages.is_power_of_two() && pages <= MAX_DATA_PAGES as u64
}

/// One more than the highest number that a CPU can have.
fn count_cpus() -> Result<u64, Refusal> {
    // SAFETY: unsigned int nr_cpu_ids, constant after boot.
    let cpus = unsafe { *(address!(nr_cpu_ids) as *const u32) };
    if cpus as usize > MAX_CPUS { Err(Refusal::TooManyCpus) } else { Ok(u64::from(cpus)) }
}
