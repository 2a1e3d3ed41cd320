//! A history as a file: a line of JSON with the bounds, then one for each event.

use std::io::{self, BufRead, Write};

use super::{Bounds, Event, History};

impl History {
    /// Writes it as lines.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.bounds)?;
        to.write_all(b"\n")?;
        for event in &self.events {
            serde_json::to_writer(&mut to, event)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// Those of the reader, and a line of another form, by its number.
    pub fn read(from: impl BufRead) -> io::Result<Self> {
        let mut lines = from.lines().enumerate().map(|(at, line)| line.map(|line| (at + 1, line)));
        let wrong = |at: usize, error: serde_json::Error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("line {at}: {error}"))
        };
        let bounds: Bounds = match lines.next().transpose()? {
            Some((at, line)) => serde_json::from_str(&line).map_err(|error| wrong(at, error))?,
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let events = lines
            .map(|line| {
                let (at, line) = line?;
                serde_json::from_str::<Event>(&line).map_err(|error| wrong(at, error))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { bounds, events })
    }
}
