//! The report as text.

use std::{
    cmp::Reverse,
    io::{self, Write},
};

use analysis::{
    DomainReport, EventReport, ExitFunctionReport, ExitReport, FunctionReport, ProcessReport, Report,
    VcpuReport, Visible,
};
use anstyle::{AnsiColor, Style};
use profile::Mode;

use super::table::{Align, Cell, Table};

/// Where the lines above the tables are broken.
const WIDTH: usize = 100;
/// The width of their labels.
const LABEL: usize = 10;

/// Writes a report. Where it is on one domain, functions are in shares of that domain.
pub(super) fn write(out: &mut impl Write, report: &Report, one_domain: bool, limit: usize) -> io::Result<()> {
    let host = &report.host;
    let cpus = host.cpus;
    field(
        out,
        "Host",
        &format!("{}: {}, kernel {}, {cpus} CPUs", host.hostname, host.hypervisor, host.kernel),
        Style::new(),
    )?;
    let unfinished = if report.complete { "" } else { ", up to where the recording is cut" };
    field(out, "Duration", &format!("{:.1} s{unfinished}", report.duration_s), Style::new())?;
    for note in &report.notes {
        field(out, "Note", &format!("{} (at {:.1} s)", note.text, note.at_s), WARNING)?;
    }
    for event in &report.events {
        writeln!(out)?;
        header(out, event, report.duration_s * f64::from(host.cpus))?;
        writeln!(out, "\nDomains, in percent of the machine's busy {}", measure(event))?;
        domains(event).write(out)?;
        processes(out, event, one_domain, limit)?;
        functions(out, event, one_domain, limit)?;
    }
    // They are the machine's, not an event's.
    if let Some(event) = report.events.first() {
        vcpus(out, event, limit)?;
        exits(out, event, limit)?;
    }
    Ok(())
}

const WARNING: Style = AnsiColor::Yellow.on_default().bold();

fn header(out: &mut impl Write, event: &EventReport, cpu_time_s: f64) -> io::Result<()> {
    let EventReport { name, rate_hz, source, bias, samples, .. } = event;
    field(out, "Event", &format!("{name} at {rate_hz} Hz per CPU, source {source}"), Style::new())?;
    field(out, "Bias", bias, Style::new())?;
    field(out, "Samples", &grouped(*samples), Style::new())?;
    if let Some(idle_s) = event.idle_s {
        let of = if cpu_time_s > 0.0 { idle_s / cpu_time_s } else { 0.0 };
        field(out, "Idle", &format!("{idle_s:.1} s of CPU time ({})", percent(of)), Style::new())?;
    }
    if let Some(quiet_s) = event.quiet_s.filter(|&quiet_s| quiet_s > 0.0) {
        field(out, "Quiet", &format!("{quiet_s:.1} s of CPU time in which the sampler was silent"), WARNING)?;
    }
    if let Some(complete) = complete_chains(event) {
        field(out, "Callers", &complete, Style::new())?;
    }
    let (loss, style) = loss(event);
    field(out, "Lost", &loss, style)
}

/// What is said of lost samples, always; with emphasis if there are any.
fn loss(event: &EventReport) -> (String, Style) {
    let (Some(taken), Some(filtered)) = (event.taken, event.filtered) else {
        return ("unknown: the recording was cut before its first books".to_owned(), WARNING);
    };
    let lost = event.lost.values().fold(0, |sum: u64, &count| sum.saturating_add(count));
    let mut text = format!("{} of {} samples taken", grouped(lost), grouped(taken));
    if lost > 0 {
        let causes = event.lost.iter().filter(|&(_, &count)| count > 0);
        let causes: Vec<String> =
            causes.map(|(cause, &count)| format!("{cause} {}", grouped(count))).collect();
        text += &format!(", {}: {}", percent(share(lost, taken)), causes.join(", "));
    }
    if filtered > 0 {
        text += &format!("; {} filtered", grouped(filtered));
    }
    (text, if lost > 0 { WARNING } else { Style::new() })
}

/// How much of the weight has callers up to an outermost function; none where they were not asked for.
fn complete_chains(event: &EventReport) -> Option<String> {
    let (mut complete, mut whole) = (0.0, 0.0);
    for domain in &event.domains {
        for (&mode, share) in &domain.complete_chains {
            let weight = domain.modes.get(mode) as f64;
            complete += share * weight;
            whole += weight;
        }
    }
    (whole > 0.0).then(|| format!("complete in {} of the {}", percent(complete / whole), measure(event)))
}

fn domains(event: &EventReport) -> Table<10> {
    let right = |title| (title, Align::Right);
    let left = |title| (title, Align::Left);
    let mut table = Table::new([
        right("SHARE"),
        right("HYPERVISOR"),
        right("KERNEL"),
        right("USER"),
        right("BACKEND"),
        right("SAMPLES"),
        right("CPU S"),
        right("ID"),
        left("KIND"),
        left("DOMAIN"),
    ]);
    for domain in &event.domains {
        let [hypervisor, kernel, user, backend] = Mode::ALL.map(|mode| {
            let weight = domain.modes.get(mode);
            let style = if weight > 0 { color(mode) } else { Style::new().dimmed() };
            Cell::new(percent(share(weight, event.weight))).styled(style)
        });
        let unknown = || "-".to_owned();
        table.row([
            Cell::new(percent(domain.share)).styled(Style::new().bold()),
            hypervisor,
            kernel,
            user,
            backend,
            Cell::new(grouped(domain.samples)),
            Cell::new(domain.cpu_s.map_or_else(unknown, |cpu_s| format!("{cpu_s:.1}"))),
            Cell::new(domain.id.map_or_else(unknown, |id| id.to_string())),
            Cell::new(domain.kind.as_str()),
            Cell::untrusted(&domain.name).at_most(64),
        ]);
    }
    table
}

/// The processes that are known, half as many as functions.
fn processes(out: &mut impl Write, event: &EventReport, one_domain: bool, limit: usize) -> io::Result<()> {
    let mut busiest: Vec<(&DomainReport, &ProcessReport)> = event
        .domains
        .iter()
        .flat_map(|domain| domain.processes.iter().map(move |process| (domain, process)))
        .collect();
    if busiest.is_empty() {
        return Ok(());
    }
    busiest.sort_by_key(|(_, process)| Reverse(process.weight));
    let of = whose(one_domain);
    writeln!(out, "\nBusiest processes, in percent of the {of} {}", measure(event))?;
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("SHARE", right),
        ("KERNEL", right),
        ("USER", right),
        ("DOMAIN", left),
        ("PID", right),
        ("PROCESS", left),
        ("CONTAINER", left),
    ]);
    let shown = limit.div_ceil(2);
    for (domain, process) in busiest.iter().take(shown) {
        let whole = if one_domain { domain.weight } else { event.weight };
        let [kernel, user] = [Mode::Kernel, Mode::User]
            .map(|mode| Cell::new(percent(share(process.modes.get(mode), whole))).styled(color(mode)));
        let root =
            || process.root.as_ref().map_or_else(|| "[unknown]".to_owned(), |root| format!("root {root}"));
        table.row([
            Cell::new(percent(share(process.weight, whole))).styled(Style::new().bold()),
            kernel,
            user,
            Cell::untrusted(&domain.name).at_most(20),
            Cell::new(process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string())),
            Cell::untrusted(&process.name.clone().unwrap_or_else(root)).at_most(32),
            Cell::untrusted(process.container.as_deref().unwrap_or("-")).at_most(64),
        ]);
    }
    table.write(out)?;
    more(out, busiest.len(), shown)
}

fn functions(out: &mut impl Write, event: &EventReport, one_domain: bool, limit: usize) -> io::Result<()> {
    let mut hottest: Vec<(&DomainReport, &FunctionReport)> = event
        .domains
        .iter()
        .flat_map(|domain| domain.functions.iter().map(move |function| (domain, function)))
        .filter(|(_, function)| function.self_weight > 0)
        .collect();
    // Stable: what weighs the same stays in the report's order.
    hottest.sort_by_key(|(_, function)| Reverse(function.self_weight));
    let of = whose(one_domain);
    writeln!(out, "\nHottest functions, in percent of the {of} {}", measure(event))?;
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("SELF", right),
        ("TOTAL", right),
        ("DOMAIN", left),
        ("MODE", left),
        ("MODULE", left),
        ("FUNCTION", left),
    ]);
    for (domain, function) in hottest.iter().take(limit) {
        let whole = if one_domain { domain.weight } else { event.weight };
        table.row([
            Cell::new(percent(share(function.self_weight, whole))).styled(Style::new().bold()),
            Cell::new(percent(share(function.total, whole))),
            Cell::untrusted(&domain.name).at_most(20),
            Cell::new(function.mode.as_str()).styled(color(function.mode)),
            Cell::untrusted(function.module.as_deref().unwrap_or("-")).at_most(24),
            Cell::untrusted(&function.name),
        ]);
    }
    table.write(out)?;
    more(out, hottest.len(), limit)
}

/// What vCPUs did with their time, those that waited longest first.
fn vcpus(out: &mut impl Write, event: &EventReport, limit: usize) -> io::Result<()> {
    let mut vcpus: Vec<(&DomainReport, &VcpuReport)> =
        event.domains.iter().flat_map(|domain| domain.vcpus.iter().map(move |vcpu| (domain, vcpu))).collect();
    if vcpus.is_empty() {
        return Ok(());
    }
    vcpus.sort_by(|(_, a), (_, b)| {
        b.waiting_s.total_cmp(&a.waiting_s).then(b.running_s.total_cmp(&a.running_s))
    });
    writeln!(out, "\nvCPUs by how long they waited for a CPU, in percent of their time")?;
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("WAITING", right),
        ("RUNNING", right),
        ("BLOCKED", right),
        ("VCPU", right),
        ("DOMAIN", left),
    ]);
    for (domain, vcpu) in vcpus.iter().take(limit) {
        let &VcpuReport { vcpu, running_s, waiting_s, blocked_s } = *vcpu;
        let whole = running_s + waiting_s + blocked_s;
        let of_whole = |part: f64| percent(if whole > 0.0 { part / whole } else { 0.0 });
        table.row([
            Cell::new(of_whole(waiting_s)).styled(Style::new().bold()),
            Cell::new(of_whole(running_s)),
            Cell::new(of_whole(blocked_s)),
            Cell::new(vcpu.to_string()),
            Cell::untrusted(&domain.name).at_most(64),
        ]);
    }
    table.write(out)?;
    more(out, vcpus.len(), limit)
}

/// Why vCPUs left their guests, from which functions, what took longest first.
fn exits(out: &mut impl Write, event: &EventReport, limit: usize) -> io::Result<()> {
    let mut exits: Vec<(&DomainReport, &ExitReport, &ExitFunctionReport)> = Vec::new();
    for domain in &event.domains {
        for exit in &domain.exits {
            exits.extend(exit.functions.iter().map(|function| (domain, exit, function)));
        }
    }
    if exits.is_empty() {
        return Ok(());
    }
    exits.sort_by(|(.., a), (.., b)| b.total_s.total_cmp(&a.total_s));
    writeln!(out, "\nCostliest VM exits: the time until the guest was entered again")?;
    let (left, right) = (Align::Left, Align::Right);
    let mut table = Table::new([
        ("MS", right),
        ("EXITS", right),
        ("MEAN US", right),
        ("LONGEST US", right),
        ("REASON", left),
        ("DOMAIN", left),
        ("MODE", left),
        ("MODULE", left),
        ("FUNCTION", left),
    ]);
    for (domain, exit, function) in exits.iter().take(limit) {
        table.row([
            Cell::new(format!("{:.1}", function.total_s * 1e3)).styled(Style::new().bold()),
            Cell::new(grouped(function.count)),
            Cell::new(format!("{:.1}", function.total_s * 1e6 / function.count.max(1) as f64)),
            Cell::new(format!("{:.1}", function.longest_us)),
            Cell::untrusted(&exit.reason).at_most(20),
            Cell::untrusted(&domain.name).at_most(20),
            Cell::new(function.mode.as_str()).styled(color(function.mode)),
            Cell::untrusted(function.module.as_deref().unwrap_or("-")).at_most(24),
            Cell::untrusted(&function.name),
        ]);
    }
    table.write(out)?;
    more(out, exits.len(), limit)
}

/// Whose time shares are of.
fn whose(one_domain: bool) -> &'static str {
    if one_domain { "domain's" } else { "machine's busy" }
}

/// How many rows were left out.
fn more(out: &mut impl Write, rows: usize, limit: usize) -> io::Result<()> {
    match rows.saturating_sub(limit) {
        0 => Ok(()),
        more => writeln!(out, "  … and {} more (--limit)", grouped(more as u64)),
    }
}

/// A label and what it labels, which may be untrusted, broken into lines between words.
fn field(out: &mut impl Write, label: &str, text: &str, style: Style) -> io::Result<()> {
    let bold = Style::new().bold();
    write!(out, "{bold}{label:LABEL$}{bold:#}{style}")?;
    let mut column = LABEL;
    for (index, word) in Visible(text).to_string().split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > WIDTH {
            write!(out, "\n{:LABEL$}", "")?;
            column = LABEL;
        } else if index > 0 {
            write!(out, " ")?;
            column += 1;
        }
        write!(out, "{word}")?;
        column += width;
    }
    writeln!(out, "{style:#}")
}

/// The colour of a mode: that of the flame graphs, as far as terminals have it.
pub(super) fn color(mode: Mode) -> Style {
    match mode {
        Mode::Hypervisor => AnsiColor::Red,
        Mode::Kernel => AnsiColor::Yellow,
        Mode::User => AnsiColor::Green,
        Mode::Backend => AnsiColor::Magenta,
    }
    .on_default()
}

/// What weights are, in words.
pub(super) fn measure(event: &EventReport) -> String {
    if event.unit == "ns" { "time".to_owned() } else { Visible(&event.unit).to_string() }
}

pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(super) fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn long_fields_are_broken_between_words() {
        let mut out = Vec::new();
        field(&mut out, "Note", &"word ".repeat(30), Style::new()).unwrap();
        let text = anstream::adapter::strip_bytes(&out).into_vec();
        let text = String::from_utf8(text).unwrap();
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().nth(1).unwrap().starts_with("          word"));
    }
}
