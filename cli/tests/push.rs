//! Profiles that are sent to servers, as Pyroscope's and Parca's documented interfaces take them in: what those refuse is
//! refused here. No such server itself has been asked yet.

mod folder;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Receiver},
    thread,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use folder::{folder, stderr, stdout, xenoscope};
use serde_json::Value;

/// What a server was sent.
struct Request {
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
}

/// A server that takes everything, or refuses it with a status and a text.
struct Server {
    url: String,
    requests: Receiver<Request>,
}

impl Server {
    fn start(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming() {
                if sender.send(serve(&stream.unwrap(), answer)).is_err() {
                    break;
                }
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.try_iter().collect()
    }
}

fn serve(mut stream: &TcpStream, answer: &str) -> Request {
    let mut lines = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let first = line();
    let (method, rest) = first.split_once(' ').unwrap();
    assert_eq!(method, "POST");
    let path = rest.split(' ').next().unwrap().to_owned();
    let headers: BTreeMap<String, String> = std::iter::repeat_with(line)
        .take_while(|line| !line.is_empty())
        .map(|line| {
            line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())).unwrap()
        })
        .collect();
    // Large bodies are announced, and wait for the server's word.
    if headers.contains_key("expect") {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    lines.read_exact(&mut body).unwrap();
    write!(stream, "HTTP/1.1 {answer}").unwrap();
    Request { path, headers, body: serde_json::from_slice(&body).unwrap() }
}

const TAKEN: &str = "200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
const REFUSED: &str =
    "422 Unprocessable\r\nContent-Length: 23\r\nConnection: close\r\n\r\nprofile is \x1b[31mtoo old";

/// The labels of the only series, and its only profile.
fn series(labels: &Value, samples: &Value) -> (BTreeMap<String, String>, Profile) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = labels.as_array().unwrap().iter().map(|label| (text(&label["name"]), text(&label["value"])));
    let pairs: Vec<_> = pairs.collect();
    for (name, value) in &pairs {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(!name.is_empty() && name.chars().all(is_plain) && !value.is_empty(), "{name}={value}");
    }
    let count = pairs.len();
    let labels: BTreeMap<_, _> = pairs.into_iter().collect();
    assert_eq!(labels.len(), count, "labels are unique");
    assert!(labels.contains_key("__name__") && labels.contains_key("service_name"), "{labels:?}");
    let [sample] = &samples.as_array().unwrap()[..] else { panic!("{samples}") };
    let packed = BASE64_STANDARD.decode(sample["rawProfile"].as_str().unwrap()).unwrap();
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
    (labels, Profile::read(&bytes))
}

/// What servers read of a profile.
struct Profile {
    types: Vec<String>,
    period_type: String,
    samples: Vec<Sample>,
    time_ns: u64,
    duration_ns: u64,
}

struct Sample {
    /// Outermost first.
    frames: Vec<String>,
    labels: BTreeMap<String, String>,
    values: Vec<u64>,
}

impl Profile {
    fn read(bytes: &[u8]) -> Self {
        let profile = fields(bytes);
        let texts: Vec<String> =
            profile[&6].iter().map(|text| String::from_utf8(text.bytes().to_vec()).unwrap()).collect();
        assert_eq!(texts[0], "");
        let text = |fields: &Fields, field| texts[number(fields, field) as usize].clone();
        let of_type = |value: &Field| {
            let value = fields(value.bytes());
            format!("{}:{}", text(&value, 1), text(&value, 2))
        };
        let functions: HashMap<u64, String> = profile[&5]
            .iter()
            .map(|function| fields(function.bytes()))
            .map(|function| (number(&function, 1), text(&function, 2)))
            .collect();
        let mappings: BTreeSet<u64> =
            profile[&3].iter().map(|mapping| number(&fields(mapping.bytes()), 1)).collect();
        let locations: HashMap<u64, String> = profile[&4]
            .iter()
            .map(|location| fields(location.bytes()))
            .map(|location| {
                let mapping = number(&location, 2);
                assert!(mapping == 0 || mappings.contains(&mapping), "mapping {mapping} is not there");
                let line = fields(location[&4][0].bytes());
                (number(&location, 1), functions[&number(&line, 1)].clone())
            })
            .collect();
        assert!(!locations.contains_key(&0) && !functions.contains_key(&0));
        let types: Vec<String> = profile[&1].iter().map(of_type).collect();
        let samples = profile[&2].iter().map(|sample| {
            let sample = fields(sample.bytes());
            let values = numbers(&sample, 2);
            assert_eq!(values.len(), types.len());
            let mut frames: Vec<String> =
                numbers(&sample, 1).iter().map(|location| locations[location].clone()).collect();
            assert!(!frames.is_empty());
            frames.reverse();
            let labels = sample[&3].iter().map(|label| fields(label.bytes()));
            let labels = labels.map(|label| (text(&label, 1), text(&label, 2))).collect();
            Sample { frames, labels, values }
        });
        let samples = samples.collect();
        let period_type = of_type(&profile[&11][0]);
        Self { samples, period_type, time_ns: number(&profile, 9), duration_ns: number(&profile, 10), types }
    }

    fn count(&self) -> u64 {
        self.samples.iter().map(|sample| sample.values[0]).sum()
    }
}

/// A field of a message of protocol buffers.
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Field {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(number) => panic!("{number} is a number"),
        }
    }
}

type Fields = HashMap<u64, Vec<Field>>;

fn varint(bytes: &mut &[u8]) -> u64 {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let (own, rest) = bytes.split_at(length);
    *bytes = rest;
    own.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f))
}

fn fields(mut bytes: &[u8]) -> Fields {
    let mut fields = Fields::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(value),
            2 => {
                let (own, rest) = bytes.split_at(value as usize);
                bytes = rest;
                Field::Bytes(own.to_vec())
            }
            wire => panic!("wire type {wire}"),
        };
        fields.entry(key >> 3).or_default().push(field);
    }
    fields
}

fn number(fields: &Fields, field: u64) -> u64 {
    match fields.get(&field).and_then(|values| values.last()) {
        Some(Field::Number(number)) => *number,
        Some(Field::Bytes(_)) => panic!("field {field} is no number"),
        None => 0,
    }
}

/// Numbers, packed as all writers have them.
fn numbers(fields: &Fields, field: u64) -> Vec<u64> {
    let mut bytes = fields[&field][0].bytes();
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        numbers.push(varint(&mut bytes));
    }
    numbers
}

/// Ten samples in three places, within the first microseconds.
#[test]
fn pyroscope_gets_a_profile_for_each_stretch_of_time() {
    let folder = folder();
    fs::write(folder.path().join("headers"), "X-Scope-OrgID: tenant\n").unwrap();
    let server = Server::start(TAKEN);
    let pushed = xenoscope(
        folder.path(),
        &["push", &server.url, "--label", "cluster=eu-1", "--header", "@headers", "--every", "10"],
    );
    stdout(&pushed);
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{}", stderr(&pushed));
    let request = &requests[0];
    assert_eq!(request.path, "/push.v1.PusherService/Push");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.headers["x-scope-orgid"], "tenant");
    let of_series = &request.body["series"][0];
    let (labels, profile) = series(&of_series["labels"], &of_series["samples"]);
    let expected =
        [("__name__", "process_cpu"), ("cluster", "eu-1"), ("host", "lab"), ("service_name", "xenoscope")];
    assert_eq!(labels, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    assert_eq!(profile.types, ["samples:count", "cpu:nanoseconds"]);
    assert_eq!(profile.period_type, "cpu:nanoseconds");
    assert_eq!((profile.count(), profile.time_ns), (10, 0));
    assert!(profile.duration_ns > 0 && profile.duration_ns <= 10_000_000_000);
    let user = profile.samples.iter().find(|sample| sample.labels["mode"] == "user").unwrap();
    // What a guest chose stays text, and does not become a series of its own.
    assert_eq!(user.frames, [r"ngin\u{7}x", r"ngx_http\u{9b}_parse"]);
    assert_eq!(user.labels["domain"], r"we\u{1b}[31mb");
    assert!(!user.labels.contains_key("process"));
}

#[test]
fn parca_gets_the_same_in_its_own_form() {
    let folder = folder();
    let server = Server::start(TAKEN);
    let pushed = xenoscope(folder.path(), &["push", &server.url, "--to", "parca"]);
    stdout(&pushed);
    let requests = server.requests();
    assert_eq!(requests[0].path, "/profiles/writeraw");
    let of_series = &requests[0].body["series"][0];
    let (_, profile) = series(&of_series["labels"]["labels"], &of_series["samples"]);
    assert_eq!(profile.count(), 10);
    assert_eq!(requests[0].body["normalized"], true);
}

#[test]
fn what_a_server_says_against_it_is_told() {
    let folder = folder();
    let refused = xenoscope(folder.path(), &["push", &Server::start(REFUSED).url]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains(r"answers 422: profile is \u{1b}[31mtoo old"), "{}", stderr(&refused));
    let nobody = xenoscope(folder.path(), &["push", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(stderr(&nobody).contains("not sent to http://127.0.0.1:1/push"), "{}", stderr(&nobody));
}
