//! The sections of a record, as what was captured of each space.

use abi::{
    record::{self, Sample},
    section::{self, REGISTERS, Section, sections},
};
use profile::{AddressSpaceRoot, CodeAddress, Registers, StackPiece, Stretch};

use super::callers::Functions;
use crate::{Captured, Missing, Owner};

/// What a record says of its sample's callers, innermost first, and why it does not say more of them.
pub(super) fn stretches(
    words: &[u64],
    sample: &Sample,
    functions: &Functions,
) -> (Vec<Captured>, Option<Missing>) {
    let (mut stretches, mut missing): (Vec<Captured>, _) = (Vec::new(), None);
    let owner = |space| match space {
        record::Mode::Hypervisor => Owner::Hypervisor,
        record::Mode::Kernel => Owner::Kernel(sample.domain.into()),
        record::Mode::User => Owner::Process(sample.domain.into()),
    };
    let guests = |space, root, stretch| Captured {
        owner: owner(space),
        page_tables: Some(AddressSpaceRoot(root)),
        stretch,
    };
    let own = |candidates| Captured {
        owner: Owner::Hypervisor,
        page_tables: None,
        stretch: Stretch::Walked(functions.chain(sample.instruction_pointer, candidates)),
    };
    for section in sections(words) {
        // Whatever else there is was interrupted by the hypervisor's code.
        if stretches.is_empty()
            && sample.mode == record::Mode::Hypervisor
            && !matches!(section, Section::Calls { .. })
        {
            stretches.push(own(&[]));
        }
        match section {
            Section::Calls { words } => stretches.push(own(words)),
            Section::Registers { space, root, words } => {
                let stretch = Stretch::Copied { registers: registers(words), stacks: Vec::new() };
                stretches.push(guests(space, root, stretch));
            }
            Section::Stack { space, address, words } => {
                if let Some(last) = stretches.last_mut()
                    && last.owner == owner(space)
                    && let Stretch::Copied { stacks, .. } = &mut last.stretch
                {
                    let mut bytes = vec![0; words.len() * 8];
                    for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
                        *to = word.to_le_bytes();
                    }
                    stacks.push(StackPiece { address, bytes });
                }
            }
            Section::Frames { space, root, words } => {
                let mut next = CodeAddress::InstructionPointer as fn(u64) -> CodeAddress;
                let frame = |&address| std::mem::replace(&mut next, CodeAddress::ReturnAddress)(address);
                stretches.push(guests(space, root, Stretch::Walked(words.iter().map(frame).collect())));
            }
            Section::Missing { why } => {
                // The first, should there be more than one.
                missing.get_or_insert(match why {
                    section::Missing::Room => Missing::Room,
                    section::Missing::PageTables => Missing::PageTables,
                });
            }
        }
    }
    (stretches, missing)
}

/// In the order of Xen's `struct cpu_user_regs`.
fn registers(words: &[u64; REGISTERS]) -> Registers {
    let &[r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ip, sp] = words;
    Registers { ip, sp, bp, bx, r12, r13, r14, r15, ax, cx, dx, si, di, r8, r9, r10, r11 }
}
