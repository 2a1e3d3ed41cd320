//! Threads that give way to the others of this machine: what they do may take longer, so that what everybody waits for does not.

/// Of threads that hash passwords: beside others that have work each gets a tenth of a processor. Much more of it, and nobody could log
/// in to a busy node.
pub const HASHES: i32 = 10;
/// Of threads that read pages of logs and lists from an embedded store: a third.
pub const PAGES: i32 = 5;

/// From now on this thread gives way by so much, and so will those that it starts. Where that is not allowed, or not known, threads are as others.
pub fn give_way(by: i32) {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(by);
    #[cfg(not(target_os = "linux"))]
    let _ = by;
}

#[cfg(test)]
pub(crate) mod tests {
    /// How nice a thread is, by its folder in `/proc`.
    #[cfg(target_os = "linux")]
    pub(crate) fn of(task: &std::path::Path) -> i32 {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap();
        // After the name in brackets comes the third field; niceness is the nineteenth.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        fields.split_ascii_whitespace().nth(16).unwrap().parse().unwrap()
    }
}
