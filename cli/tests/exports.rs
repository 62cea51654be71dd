//! Exports of a recording, and parts of it, as a user makes them.

mod folder;

use std::{fs, io::Read, path::Path};

use folder::{folder, stderr, stdout, xenoscope};

fn export(folder: &Path, format: &str, file: &str) -> Vec<u8> {
    stdout(&xenoscope(folder, &["export", "--to", format, "-o", file]));
    fs::read(folder.join(file)).unwrap()
}

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut unpacked).unwrap();
    unpacked
}

#[test]
fn folded_stacks_add_up_and_guests_write_no_syntax() {
    let folder = folder();
    let text = String::from_utf8(export(folder.path(), "folded", "x.folded")).unwrap();
    let weights = text.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
    let report = stdout(&xenoscope(folder.path(), &["report", "--json"]));
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(weights.sum::<u64>(), report["events"][0]["weight"]);
    assert!(text.contains(r"we\u{1b}[31mb;ngin\u{7}x [9];ngx_http\u{9b}_parse "), "{text}");
}

#[test]
fn json_formats_are_json() {
    let folder = folder();
    let speedscope: serde_json::Value =
        serde_json::from_slice(&export(folder.path(), "speedscope", "x.json")).unwrap();
    assert_eq!(speedscope["profiles"].as_array().unwrap().len(), 3);
    let firefox: serde_json::Value =
        serde_json::from_slice(&unpacked(&export(folder.path(), "firefox", "x.json.gz"))).unwrap();
    let samples: u64 = firefox["threads"]
        .as_array()
        .unwrap()
        .iter()
        .map(|thread| thread["samples"]["length"].as_u64().unwrap())
        .sum();
    assert_eq!(samples, 10);
}

#[test]
fn tables_have_a_row_for_each_sample() {
    let folder = folder();
    let text = String::from_utf8(export(folder.path(), "csv", "x.csv")).unwrap();
    assert_eq!(text.split("\r\n").filter(|line| !line.is_empty()).count(), 11);
    let script = String::from_utf8(export(folder.path(), "script", "x.txt")).unwrap();
    assert_eq!(script.split("\n\n").filter(|sample| !sample.is_empty()).count(), 10);
    let parquet = export(folder.path(), "parquet", "x.parquet");
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    assert!(!unpacked(&export(folder.path(), "pprof", "x.pb.gz")).is_empty());
}

#[test]
fn the_page_is_one_file_without_a_guests_markup() {
    let folder = folder();
    stdout(&xenoscope(folder.path(), &["flamegraph", "-o", "x.html"]));
    let page = fs::read_to_string(folder.path().join("x.html")).unwrap();
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains('\u{1b}') && !page.contains("http:") && !page.contains("https:"));
    stdout(&xenoscope(folder.path(), &["flamegraph", "--baseline", "xenoscope.xsr", "-o", "diff.svg"]));
    stdout(&xenoscope(folder.path(), &["flamegraph", "--baseline", "xenoscope.xsr", "-o", "diff.html"]));
    let page = fs::read_to_string(folder.path().join("diff.html")).unwrap();
    assert!(page.contains("\"differs\":true"));
}

#[test]
fn a_part_is_cut_and_names_are_taken_out() {
    let folder = folder();
    let report = |file: &str| stdout(&xenoscope(folder.path(), &["report", "-i", file]));
    stdout(&xenoscope(folder.path(), &["cut", "--domain", "Domain-0", "-o", "cut.xsr"]));
    assert!(report("cut.xsr").contains("Samples   2\n"));
    let error = stderr(&xenoscope(folder.path(), &["cut", "--mark", "never", "-o", "no.xsr"]));
    assert!(error.contains("no mark \"never\""), "{error}");
    stdout(&xenoscope(folder.path(), &["redact", "--all", "-o", "public.xsr"]));
    let public = report("public.xsr");
    assert!(!public.contains("ngx_http") && public.contains("function "), "{public}");
    stdout(&xenoscope(folder.path(), &["merge", "-o", "both.xsr", "xenoscope.xsr", "xenoscope.xsr"]));
    assert!(report("both.xsr").contains("Samples   20\n"));
}

#[test]
fn one_run_a_side_is_never_a_regression() {
    let folder = folder();
    fs::write(folder.path().join("rules.toml"), "[[function]]\nmax-increase = '0%'\n").unwrap();
    for format in ["text", "json", "junit", "markdown"] {
        let sides = ["--baseline", "xenoscope.xsr", "--candidate", "xenoscope.xsr"];
        let args = [&["gate", "--rules", "rules.toml", "--format", format], &sides[..]].concat();
        assert_eq!(xenoscope(folder.path(), &args).status.code(), Some(4), "{format}");
    }
    let output = xenoscope(folder.path(), &["gate", "--baseline", "xenoscope.xsr"]);
    assert_eq!(output.status.code(), Some(2));
    let sides = ["--baseline", "no.xsr", "--candidate", "no.xsr", "--rules", "rules.toml"];
    assert_eq!(xenoscope(folder.path(), &[&["gate"], &sides[..]].concat()).status.code(), Some(1));
}

#[test]
fn a_commands_status_is_its_own() {
    let folder = folder();
    let output = xenoscope(folder.path(), &["record", "-o", "/no/such/folder/x.xsr", "--", "true"]);
    assert_eq!(output.status.code(), Some(125), "{}", stderr(&output));
}

#[test]
fn a_package_has_its_pages_and_completions() {
    let folder = folder();
    let completions = stdout(&xenoscope(folder.path(), &["generate", "completions", "bash"]));
    assert!(completions.contains("xenoscope"));
    stdout(&xenoscope(folder.path(), &["generate", "man", "--output-dir", "man"]));
    let page = fs::read_to_string(folder.path().join("man/xenoscope-gate.1")).unwrap();
    assert!(page.contains("\\-\\-baseline"), "{page}");
}
