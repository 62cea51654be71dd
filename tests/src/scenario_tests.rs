//! What a scenario may say, and how it is told where it is wrong.

use super::*;

const XEN: &str = "[hypervisor]\nkind = \"xen\"\nrelease = \"bookworm\"\n";

fn parse(rest: &str) -> Result<Scenario> {
    Scenario::parse(&format!("{XEN}{rest}"), PathBuf::from("/scenarios"))
}

fn refusal(rest: &str) -> String {
    format!("{:#}", parse(rest).expect_err("the scenario is wrong"))
}

#[test]
fn what_is_left_out_has_a_default() {
    let scenario =
        parse("[[guest]]\nname = \"alpha\"\nkind = \"pv\"\n[[step]]\nname = \"list\"\nrun = \"xl list\"\n")
            .unwrap();
    assert_eq!(scenario.machine.cpu, "phenom,+svm");
    assert_eq!((scenario.machine.cpus, scenario.machine.icount, scenario.dom0.vcpus), (2, None, 1));
    let guest = &scenario.guests[0];
    assert_eq!((guest.kernel.as_str(), guest.vcpus, guest.start), ("linux-image-cloud-amd64", 1, true));
    assert_eq!(guest.disk, Disk::Initramfs);
    let step = &scenario.steps[0];
    assert_eq!((step.timeout_s, step.expect_exit, step.on_failure), (60, 0, OnFailure::Stop));
    assert_eq!(scenario.nmi_hz(step), None);
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let refusal = refusal("[dom0]\nvpcus = 2\n");
    assert!(refusal.contains("line 5"), "{refusal}");
    assert!(refusal.contains("unknown field `vpcus`"), "{refusal}");
}

#[test]
fn a_hypervisor_that_is_not_there_is_told_what_is() {
    let refusal =
        format!("{:#}", Scenario::parse("[hypervisor]\nkind = \"bhyve\"\n", PathBuf::new()).unwrap_err());
    assert!(refusal.contains("line 2") && refusal.contains("unknown variant `bhyve`"), "{refusal}");
}

#[test]
fn names_are_plain_and_unique() {
    let twice = refusal("[[step]]\nname = \"a\"\nrun = \"\"\n[[step]]\nname = \"a\"\nrun = \"\"\n");
    assert_eq!(twice, "line 8: step.name: \"a\" is there twice");
    let taken = refusal("[[guest]]\nname = \"dom0\"\nkind = \"pv\"\n");
    assert_eq!(taken, "line 5: guest.name: \"dom0\" has a console already");
    let odd = refusal("[[guest]]\nname = \"a/b\"\nkind = \"pv\"\n");
    assert_eq!(odd, "line 5: guest.name: \"a/b\" is not made of letters, digits, '-' and '_'");
}

#[test]
fn interrupts_name_steps_that_exist() {
    let steps = "[[step]]\nname = \"a\"\nrun = \"\"\n[[step]]\nname = \"b\"\nrun = \"\"\n";
    let scenario = parse(&format!("{steps}[nmi]\nsteps = [\"b\"]\nhz = 100\n")).unwrap();
    let hz: Vec<_> = scenario.steps.iter().map(|step| scenario.nmi_hz(step)).collect();
    assert_eq!(hz, [None, Some(100.0)]);
    let refusal = refusal(&format!("{steps}[nmi]\nsteps = [\"a\", \"c\"]\nhz = 100\n"));
    assert_eq!(refusal, "line 11: nmi.steps: there is no step \"c\"");
    let refusal = self::refusal(&format!("{steps}[nmi]\nsteps = [\"a\"]\nhz = 0.0\n"));
    assert_eq!(refusal, "line 12: nmi.hz: 0 is not between 0 and 100000");
}

#[test]
fn a_file_is_copied_or_compiled_but_not_both() {
    let both = refusal("[dom0]\nfiles = [{ from = \"a\", cc = \"b.c\", to = \"/a\" }]\n");
    assert!(both.contains("line 5") && both.contains("either `from` or `cc`"), "{both}");
    let neither = refusal("[dom0]\nfiles = [{ to = \"/a\" }]\n");
    assert!(neither.contains("either `from` or `cc`"), "{neither}");
    let somewhere = refusal("[dom0]\nfiles = [{ from = \"a\", to = \"a\" }]\n");
    assert!(somewhere.contains("absolute"), "{somewhere}");
}

#[test]
fn keys_of_another_hypervisor_are_refused_with_their_line() {
    const KVM: &str = "[hypervisor]\nkind = \"kvm\"\nrelease = \"bookworm\"\n";
    let refusal = |text: &str| format!("{:#}", Scenario::parse(text, PathBuf::new()).unwrap_err());
    let nothing = "this hypervisor has no such thing";
    assert_eq!(refusal(&format!("{KVM}[dom0]\nvcpus = 2\n")), format!("line 4: dom0: {nothing}"));
    assert_eq!(refusal(&format!("{XEN}[host]\n")), format!("line 4: host: {nothing}"));
    assert_eq!(refusal(&format!("{KVM}args = \"x\"\n")), format!("line 4: hypervisor.args: {nothing}"));
    let guest = |kind: &str, key: &str| format!("[[guest]]\nname = \"a\"\nkind = \"{kind}\"\n{key}\n");
    let xl =
        refusal(&format!("{KVM}{}{}", guest("kvm", ""), guest("kvm", "xl = []").replace("\"a\"", "\"b\"")));
    assert_eq!(xl, format!("line 11: guest.xl: {nothing}"));
    let anonymous = refusal(&format!("{XEN}{}", guest("pv", "anonymous = true")));
    assert_eq!(anonymous, format!("line 7: guest.anonymous: {nothing}"));
    let kind = refusal(&format!("{KVM}{}", guest("pvh", "")));
    assert_eq!(kind, "line 6: guest.kind of \"a\": the hypervisor has no such guests");
    assert!(
        Scenario::parse(&format!("{KVM}[host]\n{}", guest("kvm", "anonymous = true")), PathBuf::new())
            .is_ok()
    );
}
