//! What the lab and the first process of the machine's control domain (dom0, or a KVM host) tell each other, a line at
//! a time.

use std::fmt;

/// Said by the control domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// Its kernel is up.
    Up,
    /// A guest's init runs.
    Guest { name: String },
    /// All that should be there before the first step is.
    Ready,
    /// Something could not be started.
    Failed { what: String },
    /// A step has come to its end.
    Done { step: String, status: i32 },
    /// A file to be brought back is missing or could not be copied.
    Uncollected { path: String },
    /// All files that could be brought back are.
    Collected,
}

impl Report {
    /// Understands a line.
    pub(crate) fn parse(line: &str) -> Option<Report> {
        let mut words = line.split_ascii_whitespace();
        let report = match words.next()? {
            "up" => Report::Up,
            "guest" => Report::Guest { name: words.next()?.to_owned() },
            "ready" => Report::Ready,
            "failed" => Report::Failed { what: words.next()?.to_owned() },
            "done" => Report::Done { step: words.next()?.to_owned(), status: words.next()?.parse().ok()? },
            "uncollected" => Report::Uncollected { path: words.next()?.to_owned() },
            "collected" => Report::Collected,
            _ => return None,
        };
        words.next().is_none().then_some(report)
    }
}

/// Said by the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    /// Run a step; answered by [`Report::Done`].
    Run { step: &'a str },
    /// End the step that runs.
    Stop,
    /// Copy the files to be brought back; answered by [`Report::Collected`].
    Collect,
    /// Switch the machine off.
    End,
}

impl fmt::Display for Order<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Run { step } => write!(f, "run {step}"),
            Order::Stop => write!(f, "stop"),
            Order::Collect => write!(f, "collect"),
            Order::End => write!(f, "end"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_understood() {
        assert_eq!(Report::parse("ready"), Some(Report::Ready));
        assert_eq!(
            Report::parse("done 03-record 137"),
            Some(Report::Done { step: "03-record".to_owned(), status: 137 })
        );
        assert_eq!(Report::parse("guest alpha"), Some(Report::Guest { name: "alpha".to_owned() }));
    }

    #[test]
    fn anything_else_is_not() {
        for line in ["", "done", "done 03-record", "done 03-record x", "ready now", "hello"] {
            assert_eq!(Report::parse(line), None, "{line:?}");
        }
    }
}
