//! QEMU's machine protocol: a line of JSON for each command, and one for each reply or event.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

/// For how long a reply is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection on which commands can be given.
#[derive(Debug)]
pub(crate) struct Qmp {
    commands: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Qmp {
    /// Does what the protocol wants done before the first command.
    pub(crate) fn open(socket: UnixStream) -> Result<Qmp> {
        // QEMU serves one connection after the other, and asks CPUs that may not answer any more.
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Qmp { replies: BufReader::new(socket.try_clone()?), commands: socket };
        qmp.line()?; // QEMU's greeting
        qmp.execute("qmp_capabilities", &Value::Null)?;
        Ok(qmp)
    }

    /// Runs a command to its end, and gives what it returns. Events that come before are left out.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut order = json!({ "execute": command });
        if !arguments.is_null() {
            order["arguments"] = arguments.clone();
        }
        writeln!(self.commands, "{order}")?;
        loop {
            match reply(&self.line()?)? {
                Some(Ok(value)) => return Ok(value),
                Some(Err(refusal)) => bail!("QEMU refuses {command}: {refusal}"),
                None => {}
            }
        }
    }

    /// Runs a command for people, and gives what it prints.
    pub(crate) fn monitor(&mut self, command: &str) -> Result<String> {
        let printed = self.execute("human-monitor-command", &json!({ "command-line": command }))?;
        Ok(printed.as_str().unwrap_or_default().to_owned())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.replies.read_line(&mut line)? == 0 {
            bail!("QEMU has ended");
        }
        Ok(line)
    }
}

/// A reply to a command; `None` when the line tells of an event.
fn reply(line: &str) -> Result<Option<Result<Value, String>>> {
    let mut message: Value = serde_json::from_str(line)?;
    if let Some(error) = message.get("error") {
        return Ok(Some(Err(error["desc"].as_str().unwrap_or("without a reason").to_owned())));
    }
    Ok(message.get_mut("return").map(|value| Ok(value.take())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_from_events() {
        assert_eq!(reply(r#"{"return": {"a": 1}}"#).unwrap(), Some(Ok(json!({ "a": 1 }))));
        assert_eq!(reply(r#"{"event": "RTC_CHANGE", "data": {}}"#).unwrap(), None);
        let refusal = reply(r#"{"error": {"class": "GenericError", "desc": "no"}}"#).unwrap();
        assert_eq!(refusal, Some(Err("no".to_owned())));
    }
}
