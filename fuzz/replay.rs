//! Plays what is stored here. Included by the tests of the crates whose properties it is for.

use std::{fs, path::Path};

/// Checks every file of `corpus/TARGET` and `regressions/TARGET`. On a failure, the last name that was printed is the culprit's.
pub(crate) fn replay(target: &str, check: impl Fn(&[u8])) {
    let mut played = 0;
    for kind in ["corpus", "regressions"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz").join(kind).join(target);
        // A target that never failed has no regressions.
        let Ok(files) = fs::read_dir(&folder) else { continue };
        let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
        files.sort();
        for file in files {
            println!("{}", file.display());
            check(&fs::read(&file).unwrap());
            played += 1;
        }
    }
    assert!(played > 0, "there is nothing to play for {target}");
}
