//! Who called whom in Xen's code, from what on its stack looks like return addresses.
//!
//! Each candidate comes with the function that the call in front of it leads to. A caller's call leads to the function
//! that it called: so a candidate fits behind a frame if its call leads to that frame's function. One whose call is
//! indirect may fit, and one whose call leads elsewhere may too, if that function ended in a jump. What earlier calls
//! have left behind fits nowhere, as a rule. Of all chains the one is taken that leaves least to be explained.

use std::collections::{HashMap, HashSet};

use profile::CodeAddress;

use crate::HypervisorSymbol;

/// What there is to explain in a step from a frame to its caller, or in the end of a chain.
mod cost {
    /// The call leads to a function that is not known.
    pub(super) const INDIRECT: u32 = 3;
    /// It leads to another one, which must have jumped.
    pub(super) const JUMP: u32 = 12;
    /// A candidate that is no caller: more than an indirect call, of which most are what they seem.
    pub(super) const LEFT_OUT: u32 = 4;
    /// The chain ends, and there are candidates further out.
    pub(super) const END: u32 = 30;
}

/// Functions by which compilers make indirect calls.
const INDIRECT_CALL: &str = "__x86_indirect_thunk";

/// Where Xen's functions begin.
pub(super) struct Functions {
    /// Each one's first address, and the function that it belongs to: another one, for parts that were put apart.
    starts: Vec<(u64, u64)>,
    thunks: HashSet<u64>,
}

impl Functions {
    pub(super) fn new<'a>(symbols: impl Iterator<Item = &'a HypervisorSymbol> + Clone) -> Self {
        let code = symbols.filter(|symbol| matches!(symbol.kind, 'T' | 't'));
        let by_name: HashMap<&str, u64> =
            code.clone().map(|symbol| (symbol.name.as_str(), symbol.address.0)).collect();
        let whole = |name: &str| by_name.get(name.split_once(".cold")?.0).copied();
        let mut starts: Vec<(u64, u64)> = code
            .clone()
            .map(|symbol| (symbol.address.0, whole(&symbol.name).unwrap_or(symbol.address.0)))
            .collect();
        starts.sort_unstable();
        let thunks = code.filter(|symbol| symbol.name.contains(INDIRECT_CALL)).map(|symbol| symbol.address.0);
        Self { starts, thunks: thunks.collect() }
    }

    /// The function that an address lies in, by its first address.
    fn of(&self, address: u64) -> u64 {
        let behind = self.starts.partition_point(|&(start, _)| start <= address);
        behind.checked_sub(1).map_or(0, |at| self.starts[at].1)
    }

    /// Whether a call leads to where a function begins: others are made to fill the processor's stack of return addresses.
    fn is_call(&self, target: u64) -> bool {
        target == 0 || self.starts.binary_search_by_key(&target, |&(start, _)| start).is_ok()
    }

    /// The chain, innermost first, of an interrupted instruction and candidates: return address and target by turns.
    pub(super) fn chain(&self, instruction_pointer: u64, candidates: &[u64]) -> Vec<CodeAddress> {
        let (calls, _) = candidates.as_chunks::<2>();
        let calls: Vec<[u64; 2]> =
            calls.iter().copied().filter(|&[_, target]| self.is_call(target)).collect();
        // From the outermost inwards: the least cost of going on from a candidate, and by which next one.
        let mut best: Vec<(u32, Option<usize>)> = Vec::with_capacity(calls.len());
        for inner in (0..calls.len()).rev() {
            let next = self.next(self.of(calls[inner][0].wrapping_sub(1)), inner + 1, &calls, &best);
            best.push(next);
        }
        let mut chain = vec![CodeAddress::InstructionPointer(instruction_pointer)];
        let mut next = self.next(self.of(instruction_pointer), 0, &calls, &best).1;
        while let Some(at) = next {
            chain.push(CodeAddress::ReturnAddress(calls[at][0]));
            next = best[calls.len() - 1 - at].1;
        }
        chain
    }

    /// The best caller of a function among the candidates from `first` on; `best` has what follows from each of them, the
    /// outermost first.
    fn next(
        &self,
        function: u64,
        first: usize,
        calls: &[[u64; 2]],
        best: &[(u32, Option<usize>)],
    ) -> (u32, Option<usize>) {
        let rest = (calls.len() - first) as u32;
        let end = if rest == 0 { 0 } else { cost::END + rest * cost::LEFT_OUT };
        let going_on = (first..calls.len()).map(|at| {
            let target = calls[at][1];
            let step = if target == 0 || self.thunks.contains(&target) {
                cost::INDIRECT
            } else if self.of(target) == function {
                0
            } else {
                cost::JUMP
            };
            let left_out = (at - first) as u32 * cost::LEFT_OUT;
            (step + left_out + best[calls.len() - 1 - at].0, Some(at))
        });
        // The first of equals: the nearest.
        going_on.chain([(end, None)]).min_by_key(|&(cost, _)| cost).unwrap_or((0, None))
    }
}

#[cfg(test)]
mod tests {
    use profile::HypervisorVirtual;

    use super::*;

    fn functions() -> Functions {
        let names = [
            "entry",
            "dispatch",
            "handler",
            "helper",
            "file.c#work",
            "__x86_indirect_thunk_rax",
            "file.c#work.cold",
        ];
        let symbols: Vec<HypervisorSymbol> = (1..)
            .zip(names)
            .map(|(number, name)| HypervisorSymbol {
                address: HypervisorVirtual(0x1000 * number),
                kind: 'T',
                name: name.into(),
                livepatch: None,
            })
            .collect();
        Functions::new(symbols.iter())
    }

    const ENTRY: u64 = 0x1000;
    const DISPATCH: u64 = 0x2000;
    const HANDLER: u64 = 0x3000;
    const HELPER: u64 = 0x4000;
    const WORK: u64 = 0x5000;
    const THUNK: u64 = 0x6000;
    const COLD: u64 = 0x7000;

    fn chain(ip: u64, candidates: &[u64]) -> Vec<u64> {
        functions().chain(ip, candidates).into_iter().map(CodeAddress::raw).collect()
    }

    #[test]
    fn callers_are_those_whose_calls_lead_to_the_callee() {
        let calls = [HELPER + 0x10, WORK, HANDLER + 0x20, HELPER, ENTRY + 5, HANDLER];
        assert_eq!(chain(WORK + 4, &calls), [WORK + 4, HELPER + 0x10, HANDLER + 0x20, ENTRY + 5]);
        assert_eq!(chain(WORK + 4, &[]), [WORK + 4]);
    }

    #[test]
    fn what_earlier_calls_left_behind_is_left_out() {
        let stale = [DISPATCH + 8, HELPER];
        let calls = [&stale[..], &[HANDLER + 0x20, WORK], &stale, &stale, &[ENTRY + 5, HANDLER]].concat();
        assert_eq!(chain(WORK + 4, &calls), [WORK + 4, HANDLER + 0x20, ENTRY + 5]);
        // An indirect call that was left behind is no better than a direct one that fits.
        let calls = [&[DISPATCH + 8, 0][..], &[HANDLER + 0x20, WORK], &[ENTRY + 5, HANDLER]].concat();
        assert_eq!(chain(WORK + 4, &calls), [WORK + 4, HANDLER + 0x20, ENTRY + 5]);
    }

    /// DISPATCH is called by a jump of a function that is called itself, and calls indirectly: Xen's do_softirq.
    #[test]
    fn an_indirect_call_before_a_jump_is_not_left_out() {
        let calls = [DISPATCH + 9, THUNK, ENTRY + 5, HELPER];
        assert_eq!(chain(HANDLER + 4, &calls), [HANDLER + 4, DISPATCH + 9, ENTRY + 5]);
    }

    #[test]
    fn calls_to_the_middle_of_a_function_are_none() {
        let filler = [ENTRY + 0x20, ENTRY + 0x28].repeat(30);
        let calls = [&[DISPATCH + 9, HANDLER][..], &filler, &[ENTRY + 5, DISPATCH]].concat();
        assert_eq!(chain(HANDLER + 4, &calls), [HANDLER + 4, DISPATCH + 9, ENTRY + 5]);
    }

    #[test]
    fn indirect_calls_jumps_and_cold_parts_are_gone_through() {
        for indirect in [0, THUNK] {
            let calls = [DISPATCH + 9, indirect, ENTRY + 5, DISPATCH];
            assert_eq!(chain(HANDLER + 4, &calls), [HANDLER + 4, DISPATCH + 9, ENTRY + 5]);
        }
        // helper ended in a jump to work.
        let calls = [HANDLER + 9, HELPER, ENTRY + 5, HANDLER];
        assert_eq!(chain(WORK + 4, &calls), [WORK + 4, HANDLER + 9, ENTRY + 5]);
        let calls = [HANDLER + 9, WORK, DISPATCH + 1, COLD, ENTRY + 5, HANDLER];
        assert_eq!(chain(COLD + 4, &calls), [COLD + 4, HANDLER + 9, ENTRY + 5]);
    }
}
