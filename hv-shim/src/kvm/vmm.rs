//! What a virtual machine monitor's command line and libvirt say of its guest.

use std::{fs, path::Path};

use profile::Uuid;

/// Where libvirt keeps the state of the guests that run, a folder a driver.
const LIBVIRT: [&str; 2] = ["/run/libvirt/qemu", "/run/libvirt/ch"];

/// Who a guest is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Identity {
    /// Untrusted text.
    pub(super) name: Option<String>,
    pub(super) uuid: Option<Uuid>,
    /// Whether the guest comes from elsewhere: the monitor was started to take what another one had.
    pub(super) incoming: bool,
}

/// The identity of the guest that a process runs.
///
/// The monitors' control sockets are not asked: they serve one client at a time, which is the operator's.
pub(super) fn identity(pid: u32) -> Identity {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> = words.split(|&byte| byte == 0).map(String::from_utf8_lossy).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let told = from_command_line(&words);
    if told.name.is_some() && told.uuid.is_some() {
        return told;
    }
    let known = from_libvirt(pid).unwrap_or_default();
    Identity { name: told.name.or(known.name), uuid: told.uuid.or(known.uuid), ..told }
}

/// | program | name | UUID | comes from elsewhere |
/// |---|---|---|---|
/// | QEMU | `-name [guest=]NAME[,…]` (commas doubled) | `-uuid UUID` | `-incoming …` |
/// | cloud-hypervisor | | `--platform …,uuid=UUID` | `--restore …` |
/// | Firecracker | `--id NAME` | | |
/// | crosvm, kvmtool | `--name NAME` | | |
fn from_command_line(words: &[&str]) -> Identity {
    let value = |option: &str| {
        words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(option) {
            Some("") => words.get(at + 1).copied(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        })
    };
    let name = value("-name")
        .map(qemu_name)
        .or_else(|| value("--id").or_else(|| value("--name")).map(str::to_owned));
    let platform = || value("--platform")?.split(',').find_map(|part| part.strip_prefix("uuid="));
    let uuid = value("-uuid").or_else(platform).and_then(|text| text.parse().ok());
    let incoming = ["-incoming", "--restore"].iter().any(|option| value(option).is_some());
    Identity { name: name.filter(|name| !name.is_empty()), uuid, incoming }
}

/// The value of QEMU's `-name`: an unnamed first part, or the one named `guest`.
fn qemu_name(value: &str) -> String {
    // A doubled comma is a comma of the text; no text has this character.
    const COMMA: &str = "\u{0}";
    let escaped = value.replace(",,", COMMA);
    let mut parts = escaped.split(',');
    let named = parts.clone().find_map(|part| part.strip_prefix("guest="));
    let first = parts.next().filter(|part| !part.contains('='));
    named.or(first).unwrap_or_default().replace(COMMA, ",")
}

/// What libvirt's status files say of a process.
fn from_libvirt(pid: u32) -> Option<Identity> {
    let files = LIBVIRT.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .find_map(|path| of_status_file(&path, pid))
}

fn of_status_file(path: &Path, pid: u32) -> Option<Identity> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.get(text.find("<domstatus")?..)?;
    let (opening, rest) = text.split_once('>')?;
    let is_ours =
        [format!("pid='{pid}'"), format!("pid=\"{pid}\"")].iter().any(|wanted| opening.contains(wanted));
    let element = |name: &str| {
        let (_, rest) = rest.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    };
    // The file is called as the guest is; its content would have to be unescaped.
    let name = path.file_stem()?.to_string_lossy().into_owned();
    let uuid = || element("uuid").and_then(|text| text.parse().ok());
    is_ours.then(|| Identity { name: Some(name), uuid: uuid(), incoming: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

    fn identity(name: Option<&str>, uuid: Option<&str>) -> Identity {
        let uuid = uuid.map(|text| text.parse().unwrap());
        Identity { name: name.map(str::to_owned), uuid, incoming: false }
    }

    #[test]
    fn every_monitor_has_its_own_way() {
        let told = |line: &str| from_command_line(&line.split(' ').collect::<Vec<_>>());
        let libvirt = format!("qemu-system-x86_64 -name guest=web,debug-threads=on -S -uuid {UUID} -smp 2");
        assert_eq!(told(&libvirt), identity(Some("web"), Some(UUID)));
        assert_eq!(told("qemu -name db -m 1G"), identity(Some("db"), None));
        assert_eq!(told("qemu -name process=x,guest=a,,b"), identity(Some("a,b"), None));
        assert_eq!(told("qemu -name debug-threads=on -uuid nonsense"), identity(None, None));
        let cloud = format!("cloud-hypervisor --platform num_pci_segments=1,uuid={UUID}");
        assert_eq!(told(&cloud), identity(None, Some(UUID)));
        assert_eq!(told("firecracker --id=vm7 --api-sock /x"), identity(Some("vm7"), None));
        assert_eq!(told("lkvm run --name tiny"), identity(Some("tiny"), None));
        assert_eq!(told("qemu -name"), identity(None, None));
        let comes = |identity| Identity { incoming: true, ..identity };
        assert_eq!(told("qemu -incoming defer -name db"), comes(identity(Some("db"), None)));
        assert_eq!(told("cloud-hypervisor --restore source_url=file:///x"), comes(identity(None, None)));
    }

    #[test]
    fn libvirt_knows_guests_by_their_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mail.xml");
        let text = format!(
            "<!-- x -->\n<domstatus state='running' pid='77'>\n<domain><uuid>{UUID}</uuid></domain></domstatus>"
        );
        fs::write(&path, text).unwrap();
        assert_eq!(of_status_file(&path, 77), Some(identity(Some("mail"), Some(UUID))));
        assert_eq!(of_status_file(&path, 7), None);
        fs::write(&path, "<domstatus pid='77'").unwrap();
        assert_eq!(of_status_file(&path, 77), None);
    }
}
