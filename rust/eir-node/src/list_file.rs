//! List files that are written: compressed as their name says, whole or not at all.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::snapshot_file;

/// Bytes written at once.
const CHUNK: usize = 1 << 20;

/// Writes a file by `fill`, compressed where its name ends in `.gz` or `.zst`. Only its owner may read it: a pair names a
/// subscriber.
///
/// # Errors
/// Those of the file and of `fill`; what was at `path` before is then still there.
pub fn write<T>(path: &Path, fill: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    snapshot_file::replace(
        path,
        |error| error,
        |part| {
            let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(part)?;
            let mut out = BufWriter::with_capacity(CHUNK, file);
            let filled = match path.extension().and_then(OsStr::to_str) {
                Some("gz") => {
                    let mut packed = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
                    let filled = buffered(&mut packed, fill)?;
                    packed.finish()?;
                    filled
                }
                Some("zst") => {
                    let mut packed = zstd::stream::write::Encoder::new(&mut out, 0)?;
                    packed.include_checksum(true)?;
                    let filled = buffered(&mut packed, fill)?;
                    packed.finish()?;
                    filled
                }
                _ => fill(&mut out)?,
            };
            out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            Ok(filled)
        },
    )
}

/// Rows are short, and each call of an encoder is not.
fn buffered<T>(out: &mut impl Write, fill: impl FnOnce(&mut dyn Write) -> io::Result<T>) -> io::Result<T> {
    let mut out = BufWriter::with_capacity(CHUNK, out);
    let filled = fill(&mut out)?;
    out.flush()?;
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_packed_by_its_name_and_there_whole_or_as_before() {
        let directory = std::env::temp_dir().join(format!("eir-list-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in ["list.csv", "list.csv.gz", "list.csv.zst"] {
            let path = directory.join(name);
            let rows = write(&path, |out| out.write_all(&b"352099\n".repeat(10_000)).map(|()| 10_000)).unwrap();
            assert_eq!(rows, 10_000);
            let failed = write(&path, |out| {
                out.write_all(b"half")?;
                Err::<(), _>(io::Error::other("no more"))
            });
            assert_eq!(failed.unwrap_err().to_string(), "no more");
            let octets = fs::read(&path).unwrap();
            let mut text = Vec::new();
            match name {
                "list.csv" => text = octets,
                "list.csv.gz" => drop(flate2::read::GzDecoder::new(&octets[..]).read_to_end(&mut text).unwrap()),
                _ => text = zstd::decode_all(&octets[..]).unwrap(),
            }
            assert_eq!(text, b"352099\n".repeat(10_000));
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 3);
        assert!(write(&directory.join("none/list.csv"), |_| Ok(())).is_err());
        fs::remove_dir_all(directory).unwrap();
    }
}
