//! What is captured with a sample, so that its callers can be found in dom0: registers and stacks of the guest's process
//! and kernel, and what on Xen's own stack looks like return addresses.
//!
//! | the sample is in | captured |
//! |---|---|
//! | a process | its registers and the top of its stack |
//! | a kernel | its registers and stack; the stack below that, if it is the one for interrupts; the registers and stack of the process that it serves, which it has saved at the end of its stack |
//! | Xen | calls on Xen's stack; then what the vCPU did when it came to Xen, as above |
//!
//! The sections' form is [`abi::section`]'s. Everything is bounded by the room, and by constants here.

use abi::{
    record::{Guest, Mode, Sample},
    ring::{Data, Room},
    section::{Kind, MISSING_WORDS, Missing, REGISTERS, REGISTERS_WORDS, header},
};

use crate::{
    Machine, calls,
    interrupted::{CR3_ADDRESS, frame, vmcb, vmcs},
    probe::Layout,
    walk::{AddressSpace, FRAME_WORDS, Memory, Owner, Paging, Reader},
};

/// What is wanted of each sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The frames that frame pointers lead to.
    Frames,
    /// Stacks, at most so many words of each.
    Stacks(usize),
}

/// The most words of a stack.
pub const MOST_STACK_WORDS: usize = 2048;

/// The most frames that frame pointers are followed through, of each space.
const MOST_FRAMES: usize = 128;

/// Stacks of one kernel that lie upon each other: for exceptions, for interrupts, the task's own.
const MOST_STACKS: usize = 3;

/// Pages that a kernel's stack has at the most (Linux: THREAD_SIZE, IRQ_STACK_SIZE).
const STACK_PAGES: u64 = 4;

/// What leaf functions may keep below the stack pointer (System V psABI, 3.2.2).
const RED_ZONE: u64 = 128;

/// Bytes of what a kernel saves on entry: Linux's `struct pt_regs`, which begins like Xen's `struct cpu_user_regs`.
const SAVED: u64 = 168;

const PAGE: u64 = 4096;

const _: () = assert!(Wanted::Stacks(MOST_STACK_WORDS).record_words() <= abi::record::MAX_WORDS);

impl Wanted {
    /// The most words that a record takes.
    pub const fn record_words(self) -> usize {
        let stack = match self {
            Self::Frames => MOST_FRAMES,
            Self::Stacks(words) => words,
        };
        abi::record::SAMPLE_WORDS
            + 2 * REGISTERS_WORDS
            + (MOST_STACKS + 1) * (2 + stack)
            + calls::MOST_WORDS
            + MISSING_WORDS
    }
}

/// Where an interrupt came.
pub struct Interrupted<'a, M> {
    /// The machine.
    pub machine: &'a M,
    /// Where its hypervisor keeps things.
    pub layout: &'a Layout,
    /// The end of the stack that the interrupt is on.
    pub stack_top: u64,
    /// The interrupt's frame.
    pub regs: u64,
    /// The vCPU whose state is loaded (`curr_vcpu`): half-way through a switch it is not yet the current one.
    pub loaded_vcpu: u64,
}

/// Captures what belongs to a sample; the room holds the sample itself already.
pub fn capture<M: Machine, P: Memory, D: Data + ?Sized>(
    interrupted: &Interrupted<'_, M>,
    memory: &P,
    sample: &Sample,
    wanted: Wanted,
    room: &mut Room<'_, D>,
) {
    let &Interrupted { machine, layout, stack_top, regs, loaded_vcpu } = interrupted;
    let vcpu = machine.read(stack_top - layout.current_below_top);
    let guest_frame = stack_top - layout.frame_below_top;
    let (guest, mode) = match sample.guest {
        Guest::None => {
            calls::capture(machine, layout, stack_top, machine.read(regs + frame::RSP), room);
            if sample.domain >= FIRST_RESERVED || vcpu != loaded_vcpu {
                return;
            }
            left_for_xen(machine, layout, vcpu, guest_frame)
        }
        guest => (guest, sample.mode),
    };
    let vmcb = match guest {
        Guest::Svm => layout.svm.and_then(|svm| svm.vmcb(machine, vcpu)),
        _ => None,
    };
    let paging = match (guest, vmcb) {
        (Guest::Svm, vmcb) => vmcb.and_then(|vmcb| vmcb::paging(machine, vmcb)),
        (Guest::Vmx, _) => vmcs::paging(machine),
        (Guest::Pv | Guest::None, _) => Some((machine.cr3(), Paging::Direct)),
    };
    let Some((root, paging)) = paging else { return missing(mode, Missing::PageTables, room) };
    let domain = Owner(machine.read(vcpu + layout.vcpu_domain));
    let space = AddressSpace::new(memory, root, paging, domain);
    let mut capture =
        Capture { space, memory, root: root & CR3_ADDRESS, place: Place::default(), wanted, room };
    capture.guest(mode, |_, at| {
        let (in_vmcb, in_vmcs) = match at {
            frame::RIP => (vmcb::RIP, vmcs::RIP),
            frame::RSP => (vmcb::RSP, vmcs::RSP),
            frame::RAX if vmcb.is_some() => (vmcb::RAX, 0),
            _ => return Some(machine.read(guest_frame + at)),
        };
        match (guest, vmcb) {
            (_, Some(vmcb)) => Some(machine.read(vmcb + in_vmcb)),
            (Guest::Vmx, _) => machine.vmread(in_vmcs),
            _ => Some(machine.read(guest_frame + at)),
        }
    });
}

/// Says why nothing follows in a record.
pub fn missing<D: Data + ?Sized>(space: Mode, why: Missing, room: &mut Room<'_, D>) {
    room.push(header(MISSING_WORDS, Kind::Missing, space));
    room.push(why as u64);
}

/// The first domain number that no guest has (`DOMID_FIRST_RESERVED`).
const FIRST_RESERVED: u16 = 0x7ff0;

/// What the vCPU was that came to Xen, and in which of its modes. `Guest::Pv` is what is neither of the others.
fn left_for_xen<M: Machine>(machine: &M, layout: &Layout, vcpu: u64, guest_frame: u64) -> (Guest, Mode) {
    if let Some(vmcb) = layout.svm.and_then(|svm| svm.vmcb(machine, vcpu)) {
        return (Guest::Svm, vmcb::mode(machine, vmcb));
    }
    // Every function that the exit handler calls returns to it: the word below the frame says whose exit this was.
    if layout.vmx_exit.contains(machine.read(guest_frame - 8)) {
        return (Guest::Vmx, vmcs::mode(machine));
    }
    // Xen's flag does not serve here: it changes before the registers do. Kernels live in the upper half.
    let is_kernels = machine.read(guest_frame + frame::RIP) >> 63 == 1;
    (Guest::Pv, if is_kernels { Mode::Kernel } else { Mode::User })
}

/// Where code is, and its stack.
#[derive(Clone, Copy, Default)]
struct Place {
    ip: u64,
    sp: u64,
    bp: u64,
}

struct Capture<'a, 'r, P, D: ?Sized> {
    space: AddressSpace<'a, P>,
    memory: &'a P,
    root: u64,
    place: Place,
    wanted: Wanted,
    room: &'a mut Room<'r, D>,
}

impl<'a, P: Memory, D: Data + ?Sized> Capture<'a, '_, P, D> {
    /// A guest in a mode, its registers being had by their offsets in `struct cpu_user_regs`.
    #[inline(always)]
    fn guest(&mut self, mode: Mode, mut register: impl FnMut(&mut Self, u64) -> Option<u64>) {
        if self.registers(mode, &mut register).is_none() {
            return;
        }
        match mode {
            Mode::User => self.process(),
            _ if is_kernels(self.place.sp) => self.kernel(),
            // Between a system call and the change of stacks, or behind the change back: SYSCALL and SYSRET keep the
            // process's address in RCX.
            _ => {
                let of_process =
                    |this: &mut Self, at| register(this, if at == frame::RIP { frame::RCX } else { at });
                if self.registers(Mode::User, of_process).is_some() {
                    self.process();
                }
            }
        }
    }

    /// The registers: written if stacks are wanted, and remembered as far as they are needed.
    #[inline(always)]
    fn registers(
        &mut self,
        mode: Mode,
        mut register: impl FnMut(&mut Self, u64) -> Option<u64>,
    ) -> Option<()> {
        self.place = Place {
            ip: register(self, frame::RIP)?,
            sp: register(self, frame::RSP)? & !7,
            bp: register(self, frame::RBP)?,
        };
        if self.wanted != Wanted::Frames {
            let begin = self.room.length();
            self.room.push(header(REGISTERS_WORDS, Kind::Registers, mode));
            self.room.push(self.root);
            for number in 0..REGISTERS as u64 {
                let at = match number {
                    15 => frame::RIP,
                    16 => frame::RSP,
                    _ => number * 8,
                };
                let Some(word) = register(self, at) else {
                    self.room.shorten(begin);
                    return None;
                };
                self.room.push(word);
            }
        }
        Some(())
    }

    /// A process's stack.
    fn process(&mut self) {
        let Wanted::Stacks(most) = self.wanted else { return self.frames(Mode::User, Reader::User) };
        let sp = self.place.sp;
        // The red zone, if it lies in the same page: the one below may not be there.
        let from = if sp % PAGE >= RED_ZONE { sp - RED_ZONE } else { sp - sp % PAGE };
        self.stack(Mode::User, Reader::User, from, most as u64);
    }

    /// A kernel's stacks, and the process that it serves.
    fn kernel(&mut self) {
        if self.wanted == Wanted::Frames {
            self.frames(Mode::Kernel, Reader::Kernel);
        }
        let mut sp = self.place.sp;
        for _ in 0..MOST_STACKS {
            let end = self.end_of_stack(sp);
            if let Wanted::Stacks(most) = self.wanted {
                let top = match end {
                    End::Process { top } | End::Stack { top, .. } => top,
                    End::Unknown => u64::MAX,
                };
                self.stack(Mode::Kernel, Reader::Kernel, sp, (most as u64).min((top - sp) / 8));
            }
            match end {
                End::Process { top } => {
                    let saved = |this: &mut Self, at| this.space.word(top - SAVED + at, Reader::Kernel);
                    if self.registers(Mode::User, saved).is_some() {
                        self.process();
                    }
                    return;
                }
                End::Stack { sp: next, .. } => sp = next & !7,
                End::Unknown => return,
            }
        }
    }

    /// Where the stack ends that this pointer points into, and what lies there.
    fn end_of_stack(&mut self, sp: u64) -> End {
        let mut top = sp | (PAGE - 1);
        for _ in 0..STACK_PAGES {
            let Some(above) = top.checked_add(1) else { break };
            let word = |this: &mut Self, below: u64| this.space.word(above - below, Reader::Kernel);
            let (Some(last), Some(code), Some(stack)) = (word(self, 8), word(self, 32), word(self, 16))
            else {
                break;
            };
            // struct pt_regs ends with rip, cs, flags, rsp and ss.
            let is_frame = above - sp >= 40 && last < 1 << 16 && code < 1 << 16 && code != 0;
            if is_frame && last & 3 == 3 && code & 3 == 3 {
                return End::Process { top: above };
            }
            if above % (STACK_PAGES * PAGE) == 0 || self.space.page(above, Reader::Kernel).is_none() {
                // An exception's stack has the interrupted kernel's registers at its end; that for interrupts has the
                // stack pointer.
                return match (is_frame && code & 3 == 0, is_kernels(stack), is_kernels(last)) {
                    (true, true, _) => End::Stack { top: above, sp: stack },
                    (false, _, true) => End::Stack { top: above, sp: last },
                    _ => End::Unknown,
                };
            }
            top = above | (PAGE - 1);
        }
        End::Unknown
    }

    /// A stack from an address on, up to the first page that is not there.
    fn stack(&mut self, mode: Mode, reader: Reader, from: u64, most: u64) {
        let begin = self.room.length();
        self.room.push(0);
        self.room.push(from);
        let mut left = (most as usize).min(self.room.left());
        let mut at = from;
        while left > 0 {
            let Some(page) = self.space.page(at, reader) else { break };
            let first = (at >> 3) as usize % FRAME_WORDS;
            let words = left.min(FRAME_WORDS - first);
            let (_, from_here) = page.split_at(first);
            let (wanted, _) = from_here.split_at(words.min(from_here.len()));
            self.room.copy(wanted, |to, from| self.memory.copy(to, from));
            left -= words;
            let Some(next) = at.checked_add(words as u64 * 8) else { break };
            at = next;
        }
        match self.room.length() - begin {
            2 => self.room.shorten(begin),
            words => self.room.set(begin, header(words, Kind::Stack, mode)),
        }
    }

    /// The frames that frame pointers lead to: each has the caller's frame pointer and, above it, where it returns to.
    fn frames(&mut self, space: Mode, reader: Reader) {
        let begin = self.room.length();
        self.room.push(0);
        self.room.push(self.root);
        self.room.push(self.place.ip);
        let mut at = self.place.bp;
        for _ in 1..MOST_FRAMES {
            if at & 7 != 0 || self.room.left() == 0 {
                break;
            }
            let above = at.wrapping_add(8);
            let (Some(caller), Some(address)) = (self.space.word(at, reader), self.space.word(above, reader))
            else {
                break;
            };
            if address == 0 {
                break;
            }
            self.room.push(address);
            // Stacks grow downwards: callers' frames lie above.
            if caller <= at {
                break;
            }
            at = caller;
        }
        self.room.set(begin, header(self.room.length() - begin, Kind::Frames, space));
    }
}

/// What lies at the end of a kernel's stack.
enum End {
    /// What was saved of the process that entered it.
    Process {
        /// Behind the last word.
        top: u64,
    },
    /// The pointer into the stack that was left for this one.
    Stack {
        /// Behind the last word.
        top: u64,
        sp: u64,
    },
    Unknown,
}

/// Whether an address is in a kernel's half.
fn is_kernels(address: u64) -> bool {
    address >> 47 == (1 << 17) - 1
}
