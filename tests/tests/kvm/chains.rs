//! Are the call chains of guests the ones that there are, with nothing installed in them and no file given?

use lab::evidence::paths::Paths;
use profile::Mode;

use crate::{
    figures,
    host::{Booted, Host, host},
};

static BOOTED: Booted = Booted::new();

fn chains() -> &'static Host {
    host(&BOOTED, "kvm_chains")
}

#[test]
#[ignore = "boots a real hypervisor: cargo xtask test"]
fn programs_have_their_one_true_chain_with_and_without_frame_pointers() {
    chains().step("record").ended(0);
    let observed = chains().observed("chains.xsr");
    observed.assert_balanced();
    for (guest, program) in [("alpha", "framed"), ("beta", "frameless")] {
        let domain = observed.domain(guest);
        let mut paths = Paths::default();
        for sample in observed.once_named(domain, Mode::User) {
            if observed.process_name(sample) == Some(program) {
                paths.add(sample.chain, &observed.recorded.tables, "_start");
            }
        }
        figures::figure(
            format!("samples of {program} with the one true chain"),
            format_args!("{} of {}, {:?}", paths.right, paths.samples, paths.broken),
        );
        assert_eq!(
            paths.depths.keys().copied().collect::<Vec<_>>(),
            [8, 16, 24, 32, 40],
            "every path was taken"
        );
        assert!(paths.samples > 1000, "{paths:?}");
        assert_eq!(paths.wrong, 0, "callers that do not exist");
        assert!(paths.share() >= 0.95, "{program}: {paths:?}");
    }
}
