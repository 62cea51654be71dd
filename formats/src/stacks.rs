//! What was copied with samples, where the recording keeps it: a line of JSON for each of them.

use std::{
    fmt::Write as _,
    io::{Read, Write},
};

use profile::{
    KeptStacks, Registers, Space, StackPiece, Stretch,
    recording::{Recorded, Recording, Tables, Told},
};
use serde_json::{Value, json};

use crate::ExportError;

/// Writes all stacks that a recording keeps; none if it keeps none.
pub fn write_stacks<R: Read>(mut recording: Recording<R>, out: &mut impl Write) -> Result<(), ExportError> {
    let mut recorded = Recorded::new(recording.header().clone());
    loop {
        let told = recording.read_next()?;
        let is_last = told.is_last();
        let kept = match &told {
            Told::Stacks(kept) => kept.clone(),
            _ => Vec::new(),
        };
        // What is damaged ends what can be read.
        if recorded.take(told, |_, _| {}).is_err() || is_last {
            return Ok(out.flush()?);
        }
        for kept in &kept {
            writeln!(out, "{}", line(kept, &recorded.tables))?;
        }
    }
}

fn line(kept: &KeptStacks, tables: &Tables) -> Value {
    let stretches = kept.stretches.iter().map(|(space, stretch)| {
        let (space, domain, pid) = match *space {
            Space::Hypervisor => ("hypervisor", None, None),
            Space::Kernel(domain) => ("kernel", Some(domain), None),
            Space::User(domain, process) => ("user", Some(domain), tables.process(process).pid),
        };
        let domain = domain.map(|domain| tables.domain(domain).name.as_str());
        let mut line = json!({ "space": space, "domain": domain, "pid": pid });
        match stretch {
            Stretch::Walked(frames) => {
                line["frames"] = frames.iter().map(|frame| hexadecimal(frame.raw())).collect();
            }
            Stretch::Copied { registers, stacks } => {
                line["registers"] = self::registers(registers);
                line["stacks"] = stacks.iter().map(piece).collect();
            }
        }
        line
    });
    json!({ "cpu": kept.cpu.0, "sequence": kept.sequence, "stretches": stretches.collect::<Vec<_>>() })
}

fn registers(registers: &Registers) -> Value {
    let &Registers { ip, sp, bp, bx, r12, r13, r14, r15, ax, cx, dx, si, di, r8, r9, r10, r11 } = registers;
    let named = [
        ("rip", ip),
        ("rsp", sp),
        ("rbp", bp),
        ("rbx", bx),
        ("r12", r12),
        ("r13", r13),
        ("r14", r14),
        ("r15", r15),
        ("rax", ax),
        ("rcx", cx),
        ("rdx", dx),
        ("rsi", si),
        ("rdi", di),
        ("r8", r8),
        ("r9", r9),
        ("r10", r10),
        ("r11", r11),
    ];
    named.into_iter().map(|(name, value)| (name.to_owned(), hexadecimal(value))).collect()
}

fn piece(piece: &StackPiece) -> Value {
    let mut bytes = String::with_capacity(2 * piece.bytes.len());
    for byte in &piece.bytes {
        write!(bytes, "{byte:02x}").expect("strings take all text");
    }
    json!({ "address": hexadecimal(piece.address), "bytes": bytes })
}

fn hexadecimal(value: u64) -> Value {
    format!("{value:#x}").into()
}
