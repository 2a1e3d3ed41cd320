//! Where the program tells things.

use std::io::Write;

use rustyline::ExternalPrinter;

use super::{json, sanitize, tell::Tell, text};

/// Writes what is told, safe to show, and flushes it.
pub(crate) struct Output {
    json: bool,
    sink: Sink,
    broken: bool,
}

/// Where the lines go.
pub(crate) enum Sink {
    /// Standard output.
    Stdout,
    /// Above the line that is being typed.
    Terminal(Box<dyn ExternalPrinter + Send>),
}

impl Output {
    pub(crate) fn new(json: bool, sink: Sink) -> Self {
        Self { json, sink, broken: false }
    }

    /// Tells something. Whether somebody could see it: nobody can once the output is closed.
    pub(crate) fn tell(&mut self, tell: &Tell<'_>) -> bool {
        let out = written(tell, self.json);
        if !out.is_empty() && !self.broken {
            self.broken = !self.sink.write(out);
        }
        !self.broken
    }

    /// Whether it is of the form for programs.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Whether nobody can see what is told.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }
}

/// What is written to tell something: lines that are safe to show.
pub(crate) fn written(tell: &Tell<'_>, as_json: bool) -> String {
    let mut out = String::new();
    let lines = if as_json { json::lines(tell) } else { text::lines(tell) };
    for line in lines {
        let line = if as_json { sanitize::escaped_json(&line) } else { sanitize::visible(&line) };
        out.push_str(&line);
        out.push('\n');
    }
    out
}

impl Sink {
    fn write(&mut self, lines: String) -> bool {
        match self {
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()).is_ok()
            }
            Self::Terminal(printer) => printer.print(lines).is_ok(),
        }
    }
}
