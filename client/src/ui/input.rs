//! Lines from a person or a script.
//!
//! Reading blocks, so it has a thread of its own, which reads a line when asked for one and then waits to be asked
//! again. In between the program is free to print what arrives.

use std::{
    io::{self, BufRead, Read},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use rustyline::{
    Cmd, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, ExternalPrinter,
    KeyEvent, Movement, RepeatCount, error::ReadlineError, history::MemHistory,
};
use tokio::sync::mpsc;

/// The longest line taken from a pipe. Nothing that a server takes is longer.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A command; it is remembered for the arrow keys.
    Command,
    /// A line, with this prompt.
    Line(&'static str),
    /// A line that is not echoed, with this prompt.
    Secret(&'static str),
}

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A line, without its end.
    Line(String),
    /// The input has ended.
    End,
    /// Ctrl-C on an empty line.
    Interrupted,
    /// A line that cannot be used, and why.
    Unusable(&'static str),
}

/// Asks the thread. One line is asked for at a time.
pub(crate) struct Input {
    asks: SyncSender<Ask>,
    answers: mpsc::Receiver<Answer>,
}

type LineEditor = Editor<(), MemHistory>;

impl Input {
    /// Lines of standard input.
    pub(crate) fn pipe() -> Self {
        Self::start(|_| {
            let mut stdin = io::stdin().lock();
            read_line(&mut stdin)
        })
    }

    /// Lines typed on a terminal, and what prints above the one being typed, if the terminal can.
    pub(crate) fn terminal() -> Result<(Self, Option<Box<dyn ExternalPrinter + Send>>), ReadlineError> {
        let config = Config::builder().build();
        let mut editor: LineEditor = Editor::with_history(config, MemHistory::new())?;
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(ClearLine)));
        let printer = editor.create_external_printer().ok();
        let printer = printer.map(|printer| Box::new(printer) as Box<dyn ExternalPrinter + Send>);
        Ok((Self::start(move |ask| edit_line(&mut editor, ask)), printer))
    }

    #[expect(clippy::disallowed_methods, reason = "reading a terminal or a pipe blocks")]
    fn start(mut read: impl FnMut(Ask) -> Answer + Send + 'static) -> Self {
        // One question is asked at a time, so neither side ever waits for room.
        let (asks, asked): (_, Receiver<Ask>) = sync_channel(1);
        let (answer, answers) = mpsc::channel(1);
        std::thread::spawn(move || {
            while let Ok(ask) = asked.recv() {
                if answer.blocking_send(read(ask)).is_err() {
                    return;
                }
            }
        });
        Self { asks, answers }
    }

    /// Asks for a line.
    pub(crate) fn ask(&self, ask: Ask) {
        // A thread that has ended answers with the end of the input.
        let _ = self.asks.try_send(ask);
    }

    /// The answer to what was asked. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> Answer {
        self.answers.recv().await.unwrap_or(Answer::End)
    }
}

/// Clears a line with something on it; an empty one is left to mean an interruption.
struct ClearLine;

impl ConditionalEventHandler for ClearLine {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, context: &EventContext<'_>) -> Option<Cmd> {
        (!context.line().is_empty()).then_some(Cmd::Kill(Movement::WholeBuffer))
    }
}

fn edit_line(editor: &mut LineEditor, ask: Ask) -> Answer {
    let line = match ask {
        Ask::Command => editor.readline("->"),
        Ask::Line(prompt) => editor.readline(prompt),
        Ask::Secret(prompt) => rpassword::prompt_password(prompt).map_err(ReadlineError::Io),
    };
    match line {
        Ok(line) => {
            if ask == Ask::Command && !line.trim().is_empty() {
                // In memory only, and without it the arrow keys merely remember less.
                let _ = editor.add_history_entry(&line);
            }
            Answer::Line(line)
        }
        Err(ReadlineError::Interrupted) => Answer::Interrupted,
        Err(ReadlineError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => Answer::Interrupted,
        Err(_) => Answer::End,
    }
}

/// A line of bounded length; what is longer is skipped up to its end.
fn read_line(from: &mut impl BufRead) -> Answer {
    let mut line = Vec::new();
    match from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
        Ok(0) | Err(_) => return Answer::End,
        Ok(_) => {}
    }
    if line.last() != Some(&b'\n') && line.len() as u64 >= LINE_BYTES_MAX {
        let mut rest = Vec::new();
        while !matches!(from.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut rest), Ok(0) | Err(_)) {
            if rest.last() == Some(&b'\n') {
                break;
            }
            rest.clear();
        }
        return Answer::Unusable("that line is too long");
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(line) => Answer::Line(line.into()),
        Err(_) => Answer::Unusable("that line is not text in UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_pipe() {
        let mut long = vec![b'x'; 2 * LINE_BYTES_MAX as usize + 7];
        long.extend(b"\nafter");
        let check = |bytes: &[u8], expected: &[Answer]| {
            let mut from = bytes;
            let found: Vec<Answer> =
                std::iter::from_fn(|| Some(read_line(&mut from)).filter(|answer| *answer != Answer::End))
                    .collect();
            assert_eq!(found, expected);
        };
        let line = |text: &str| Answer::Line(text.into());
        check(b"", &[]);
        check(b"1\n\r\nquit\r\nlast", &[line("1"), line(""), line("quit"), line("last")]);
        check(b"\xff\nok\n", &[Answer::Unusable("that line is not text in UTF-8"), line("ok")]);
        check(&long, &[Answer::Unusable("that line is too long"), line("after")]);
    }
}
