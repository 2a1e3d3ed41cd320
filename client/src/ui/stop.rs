//! Signals that ask the program to leave.

use std::{future::pending, io};

/// Ctrl-C while no line is being edited, and SIGTERM.
pub(super) struct Stop {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    /// Not on a terminal: the line editor would leave it in raw mode, which the default action leaves to the shell.
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
}

impl Stop {
    /// Listens from now on.
    #[cfg(unix)]
    pub(super) fn new(interactive: bool) -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = if interactive { None } else { Some(signal(SignalKind::terminate())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate })
    }

    /// Listens from now on.
    #[cfg(not(unix))]
    pub(super) fn new(_interactive: bool) -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for a signal. Cancel-safe.
    #[cfg(unix)]
    pub(super) async fn requested(&mut self) {
        let terminate = async {
            match &mut self.terminate {
                Some(signal) => signal.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = terminate => {}
        }
    }

    /// Waits for a signal. Cancel-safe.
    #[cfg(not(unix))]
    pub(super) async fn requested(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            pending::<()>().await;
        }
    }
}
