//! Reads configurations and key files from disk: the only place of this crate that touches the system.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::key_file::{KeyFileFault, KeyFiles};
use crate::parse::{Checked, Surroundings, parse};
use crate::problem::Problem;

/// Reads and checks the configuration at `path` for a machine with `cpus` CPUs.
///
/// Key files are looked for beside the configuration. Errors are all that is wrong, at once, in the order of the file.
pub fn load(path: &Path, cpus: usize) -> Result<Checked, Vec<Problem>> {
    let file = path.display().to_string();
    let text = read_text(path).map_err(|(message, hint)| vec![Problem::with_file(&file, message, hint)])?;
    let keys = KeyFolder(path.parent().map(Path::to_path_buf).unwrap_or_default());
    parse(&text, &file, &Surroundings { cpus, keys: &keys })
}

fn read_text(path: &Path) -> Result<String, (String, &'static str)> {
    let bytes = fs::read(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "give the path of the configuration with --config",
            io::ErrorKind::PermissionDenied => "run as a user who may read it, usually root",
            io::ErrorKind::IsADirectory => "name the file in it",
            _ => "",
        };
        (format!("the configuration cannot be read: {error}"), hint)
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(good).filter(|&&b| b == b'\n').count() + 1;
        (format!("line {line} of the configuration is not UTF-8 text"), "save the file as UTF-8")
    })
}

/// Key files on disk, relative to a folder.
struct KeyFolder(PathBuf);

impl KeyFiles for KeyFolder {
    fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileFault> {
        const GROUP_AND_OTHERS: u32 = 0o077;
        let path = self.locate(path);
        // Looked at before it is opened, because opening a FIFO waits; and again after, because it may have been replaced.
        check_regular(&fs::metadata(&path).map_err(fault)?)?;
        let file = File::open(&path).map_err(fault)?;
        let metadata = file.metadata().map_err(fault)?;
        check_regular(&metadata)?;
        if metadata.mode() & GROUP_AND_OTHERS != 0 {
            return Err(KeyFileFault::Exposed(metadata.mode() & 0o7777));
        }
        // Room for all that may come, so that the buffer never moves and leaves a copy behind.
        let mut content = Zeroizing::new(Vec::with_capacity(KeyFileFault::MAX_BYTES as usize + 1));
        file.take(KeyFileFault::MAX_BYTES + 1).read_to_end(&mut content).map_err(fault)?;
        if content.len() as u64 > KeyFileFault::MAX_BYTES { Err(KeyFileFault::TooLarge) } else { Ok(content) }
    }

    fn locate(&self, path: &Path) -> PathBuf {
        self.0.join(path)
    }
}

fn check_regular(metadata: &fs::Metadata) -> Result<(), KeyFileFault> {
    if metadata.is_file() { Ok(()) } else { Err(KeyFileFault::NotRegular) }
}

fn fault(error: io::Error) -> KeyFileFault {
    match error.kind() {
        io::ErrorKind::NotFound => KeyFileFault::Missing,
        kind => KeyFileFault::Unreadable(kind),
    }
}
