//! The devices and subscribers of a day as a file: written whole or not at all, for the node's user alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use eir_core::in_use::{Day, InUse};

use crate::pieces::PIECE;

/// Writes the pairs of a day as CSV, `imei,imsi`, in no order; the IMSI is empty where requests named none. Returns how
/// many there were.
///
/// # Errors
/// Where the file cannot be written; what was at `path` before is then still there.
pub fn write(in_use: &InUse, day: Day, path: &Path) -> io::Result<u64> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = write_part(in_use, day, &part).and_then(|count| {
        fs::rename(&part, path)?;
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        Ok(count)
    });
    if written.is_err() {
        // Nothing more can be done where even that fails.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_part(in_use: &InUse, day: Day, part: &Path) -> io::Result<u64> {
    // It names subscribers, whatever the umask is.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(part)?;
    let mut out = BufWriter::with_capacity(PIECE, file);
    out.write_all(b"imei,imsi\n")?;
    let (mut count, mut result) = (0, Ok(()));
    in_use.for_each_pair(day, |imei, imsi| {
        if result.is_ok() {
            let digits = imsi.map(|imsi| imsi.digits()).unwrap_or_default();
            result = writeln!(out, "{imei},{digits}");
            count += 1;
        }
    });
    result?;
    out.flush()?;
    out.get_ref().sync_all()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use eir_core::imei::{Imei, Imsi};

    use super::*;

    #[test]
    fn a_day_s_pairs_are_written_whole_or_the_old_file_stays() {
        let directory = std::env::temp_dir().join(format!("eir-pairs-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("day.csv");
        let table = InUse::new(1 << 16, 20_000);
        let device = |number| Imei::from_number(number).unwrap();
        table.mark(device(35_000_000_000_001), Imsi::from_digits(b"001010000000001"), 20_000);
        table.mark(device(1), None, 20_000);
        table.mark(device(2), None, 19_999);
        assert_eq!(write(&table, 20_000, &path).unwrap(), 2);
        let text = fs::read_to_string(&path).unwrap();
        let mut lines: Vec<_> = text.lines().collect();
        lines[1..].sort_unstable();
        assert_eq!(lines, ["imei,imsi", "00000000000001,", "35000000000001,001010000000001"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&table, 20_001, &path).unwrap(), 0);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        write(&table, 20_000, &directory.join("none/day.csv")).unwrap_err();
        // A directory is in the file's place.
        write(&table, 20_000, &directory.join("..")).unwrap_err();
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
        fs::remove_dir_all(directory).unwrap();
    }
}
