//! From CSV records to list rows: what each kind of file must have, and how many wrong rows it may have
//! (docs/formats.md describes the files).
//!
//! Its one job: [`read`] a file, hand every right row to the caller and account for every wrong one. The builder calls
//! it. It never keeps a row, and no IMSI of a row ever comes into a message.

use std::borrow::Cow;
use std::io::Read;

use super::List;
use super::feed::{Dialect, Feed, Record};
use super::foreign;
use super::formats::{CHANGE_TYPE, FileKind};
use super::report::{BadRow, FileError, FileFault, FileReport, KEPT, WrongRow};
use super::tag::parse_reason;
use super::zone::parse_day;
use crate::imei::{IMEI_LIMIT, Imei, Imsi, SNRS_PER_TAC};
use crate::in_use::Day;

/// A file is given up before its end when this many rows and more than half are wrong.
const HOPELESS: u64 = 10_000;
/// Longest header that is shown in a message, in bytes.
const HEADER_SHOWN: usize = 80;
/// Most columns that a kind of file needs.
const MOST_COLUMNS: usize = 5;

/// A right row.
pub(super) enum Row<'r> {
    /// A listed device; on the grey list it may have a last day with access.
    Device { imei: Imei, list: List, reason: Cow<'r, str>, until: Option<Day> },
    /// 14-digit keys from one to another, both included.
    Range { from: u64, to: u64, list: List, reason: Cow<'r, str> },
    /// A TAC.
    Tac(u32),
    /// IMSIs from one to another, both included, in the form of [`Imsi::padded`].
    ImsiRange { from: u64, to: u64 },
    /// A device and a subscriber that may use it.
    Pair { imei: Imei, imsi: Imsi },
    /// A device's listing as it is from now on; none where it is on no list any more.
    Change { imei: Imei, listed: Option<(List, Cow<'r, str>, Option<Day>)> },
    /// A pair that there is from now on, or that there is no more.
    PairChange { imei: Imei, imsi: Imsi, present: bool },
}

/// How many wrong rows a file may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    /// None at all.
    pub strict: bool,
    /// Their share of the rows.
    pub max_bad_share: f64,
}

/// Read a whole file, handing each right row to `take`.
pub(super) fn read(
    kind: FileKind,
    file: &str,
    reader: impl Read,
    tolerance: Tolerance,
    progress: &mut dyn FnMut(u64),
    mut take: impl FnMut(Row<'_>) -> Result<(), FileFault>,
) -> Result<FileReport, FileError> {
    let mut report = FileReport {
        file: file.to_owned(),
        kind,
        rows: 0,
        wrong_rows: 0,
        first_wrong_rows: Vec::new(),
        not_decimal: 0,
        left_out: 0,
        check_digit_mismatches: 0,
    };
    match read_rows(reader, tolerance, progress, &mut take, &mut report) {
        Ok(()) if is_refused(&report, tolerance) => Err(FileFault::WrongRows(Box::new(report))),
        Ok(()) => Ok(report),
        Err(fault) => Err(fault),
    }
    .map_err(|fault| FileError { file: file.to_owned(), fault })
}

fn read_rows(
    reader: impl Read,
    tolerance: Tolerance,
    progress: &mut dyn FnMut(u64),
    take: &mut impl FnMut(Row<'_>) -> Result<(), FileFault>,
    report: &mut FileReport,
) -> Result<(), FileFault> {
    let dialect = match report.kind {
        FileKind::GsmaTacs => Dialect::Pipes,
        kind if kind.is_of_dirbs() => Dialect::Recorded,
        _ => Dialect::Csv,
    };
    let mut feed = Feed::open(reader, dialect, progress)?;
    let mut parser = if report.kind.columns().is_empty() {
        Parser::without_header(report.kind)
    } else {
        Parser::of_header(report.kind, &feed.next()?.ok_or(FileFault::Empty)?)?
    };
    while let Some(record) = feed.next()? {
        report.rows += 1;
        match parser.row(&record) {
            Ok(Some(row)) => take(row)?,
            Ok(None) => report.left_out += 1,
            // No device that is asked for can have such an IMEI, so nothing is lost with it.
            Err(WrongRow::NotDecimal) => report.not_decimal += 1,
            Err(reason) => {
                let row = BadRow { file: report.file.clone(), line: record.line, reason };
                if tolerance.strict {
                    return Err(FileFault::WrongRow(row));
                }
                report.wrong_rows += 1;
                if report.first_wrong_rows.len() < KEPT {
                    report.first_wrong_rows.push(row);
                }
                let hopeless = report.wrong_rows >= HOPELESS && report.wrong_rows > report.rows / 2;
                if hopeless && is_refused(report, tolerance) {
                    break;
                }
            }
        }
    }
    report.check_digit_mismatches = parser.check_digit_mismatches;
    Ok(())
}

/// Whether there are more wrong rows than the share allows. A share that is no share allows none.
fn is_refused(report: &FileReport, tolerance: Tolerance) -> bool {
    let share = if (0.0..=1.0).contains(&tolerance.max_bad_share) { tolerance.max_bad_share } else { 0.0 };
    report.wrong_rows as f64 > share * report.rows as f64
}

/// Reads the values of one file's rows.
pub(super) struct Parser {
    kind: FileKind,
    /// Fields that every row must have.
    width: usize,
    /// Where the kind's columns are, in the order of [`FileKind::columns`] and then [`FileKind::optional`]; no field's
    /// place for one that is not there.
    places: [usize; MOST_COLUMNS],
    check_digit_mismatches: u64,
}

impl Parser {
    fn of_header(kind: FileKind, header: &Record<'_>) -> Result<Self, FileFault> {
        // Changes taken for a whole list would be one of a few devices.
        let changes = header.fields().any(|name| name.eq_ignore_ascii_case(CHANGE_TYPE.as_bytes()));
        let mut names = header.fields();
        let is_another =
            names.any(|name| kind.others().iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes())));
        if is_another || changes && !kind.columns().contains(&CHANGE_TYPE) {
            return Err(FileFault::Header { kind, found: shown_header(header) });
        }
        let mut places = [usize::MAX; MOST_COLUMNS];
        let columns = kind.columns().iter().map(|column| (column, true));
        let columns = columns.chain(kind.optional().iter().map(|column| (column, false)));
        for (place, (column, must)) in places.iter_mut().zip(columns) {
            let mut found = (0..).zip(header.fields()).filter(|(_, name)| name.eq_ignore_ascii_case(column.as_bytes()));
            match (found.next(), found.next()) {
                (Some((number, _)), None) => *place = number,
                (None, _) if !must => {}
                _ => return Err(FileFault::Header { kind, found: shown_header(header) }),
            }
        }
        Ok(Self { kind, width: header.len(), places, check_digit_mismatches: 0 })
    }

    /// For a file of one column that no line names.
    fn without_header(kind: FileKind) -> Self {
        let mut places = [usize::MAX; MOST_COLUMNS];
        places[0] = 0;
        Self { kind, width: 1, places, check_digit_mismatches: 0 }
    }

    /// What a row says; `None` for one that is left out, as its kind has it.
    #[inline]
    fn row<'r>(&mut self, record: &Record<'r>) -> Result<Option<Row<'r>>, WrongRow> {
        if record.len() != self.width {
            return Err(WrongRow::Fields(record.len()));
        }
        let fields = self.places.map(|place| record.field(place));
        let [first, second, third, fourth, fifth] = fields;
        let row = match self.kind {
            FileKind::Devices => {
                let (imei, list) = (self.imei(first)?, list(second)?);
                let reason = parse_reason(third).ok_or(WrongRow::Reason)?;
                Row::Device { imei, list, reason, until: until(fourth, list)? }
            }
            FileKind::Ranges => {
                let (from, to) = self.range(first, second)?;
                let list = list(third)?;
                if list == List::Grey {
                    return Err(WrongRow::List);
                }
                Row::Range { from, to, list, reason: parse_reason(fourth).ok_or(WrongRow::Reason)? }
            }
            FileKind::AllocatedTacs | FileKind::ExemptTacs => Row::Tac(tac(first).ok_or(WrongRow::Tac)?),
            FileKind::ExemptImsis => {
                let from = padded_imsi(first, 0).ok_or(WrongRow::ImsiRangeEnd)?;
                let to = padded_imsi(second, 9).ok_or(WrongRow::ImsiRangeEnd)?;
                if from > to {
                    return Err(WrongRow::Backwards);
                }
                Row::ImsiRange { from, to }
            }
            FileKind::Pairs => {
                let imsi = Imsi::from_digits(second).ok_or(WrongRow::Imsi)?;
                Row::Pair { imei: self.imei(first)?, imsi }
            }
            FileKind::DeviceChanges => {
                let (present, imei) = (is_set(first)?, self.imei(second)?);
                if !present {
                    return Ok(Some(Row::Change { imei, listed: None }));
                }
                let list = list(third)?;
                let reason = parse_reason(fourth).ok_or(WrongRow::Reason)?;
                Row::Change { imei, listed: Some((list, reason, until(fifth, list)?)) }
            }
            FileKind::PairChanges => {
                let imsi = Imsi::from_digits(third).ok_or(WrongRow::Imsi)?;
                Row::PairChange { present: is_set(first)?, imei: self.imei(second)?, imsi }
            }
            _ => return foreign::row(self, self.kind, [first, second, third, fourth, fifth]),
        };
        Ok(Some(row))
    }

    /// The IMEI of a device.
    #[inline]
    pub(super) fn imei(&mut self, text: &[u8]) -> Result<Imei, WrongRow> {
        let imei = Imei::from_digits(text).map_err(|_| WrongRow::Imei)?;
        self.count_mismatch(imei, text);
        Ok(imei)
    }

    /// Count a 15th digit that is neither 0 nor the check digit. Of 16 digits the last two are a software version.
    #[inline]
    fn count_mismatch(&mut self, imei: Imei, text: &[u8]) {
        if let Some((&last, rest)) = text.split_last()
            && rest.len() == 14
            && last != b'0'
            && last != b'0' + imei.check_digit()
        {
            self.check_digit_mismatches += 1;
        }
    }

    /// The keys of a range of IMEIs or whole TACs.
    fn range(&mut self, from: &[u8], to: &[u8]) -> Result<(u64, u64), WrongRow> {
        let (from, to) = match (tac(from), tac(to)) {
            (Some(from), Some(to)) => {
                (u64::from(from) * SNRS_PER_TAC, u64::from(to) * SNRS_PER_TAC + (SNRS_PER_TAC - 1))
            }
            (None, None) => (self.range_end(from)?, self.range_end(to)?),
            (Some(_), None) => return Err(self.range_end(to).map_or_else(|wrong| wrong, |_| WrongRow::MixedRange)),
            (None, Some(_)) => return Err(self.range_end(from).map_or_else(|wrong| wrong, |_| WrongRow::MixedRange)),
        };
        if from > to { Err(WrongRow::Backwards) } else { Ok((from, to)) }
    }

    /// The key of a range's end; unlike a device's it may be all zero.
    fn range_end(&mut self, text: &[u8]) -> Result<u64, WrongRow> {
        if !(14..=16).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
            return Err(WrongRow::RangeEnd);
        }
        let key = text.get(..14).and_then(decimal).filter(|&key| key < IMEI_LIMIT).ok_or(WrongRow::RangeEnd)?;
        if let Some(imei) = Imei::from_number(key) {
            self.count_mismatch(imei, text);
        }
        Ok(key)
    }
}

/// The header as a message may show it.
fn shown_header(header: &Record<'_>) -> String {
    let names = header.fields().collect::<Vec<_>>().join(&b","[..]);
    if names.iter().any(u8::is_ascii_digit) {
        // It may be a row, with an IMSI.
        return "a line with digits: is there a header?".to_owned();
    }
    let start = names.get(..HEADER_SHOWN).unwrap_or(&names);
    format!("\"{}\"", start.escape_ascii())
}

/// Whether a change sets something, or removes it.
#[inline]
fn is_set(text: &[u8]) -> Result<bool, WrongRow> {
    match text {
        b"set" => Ok(true),
        b"remove" => Ok(false),
        _ => Err(WrongRow::ChangeType),
    }
}

#[inline]
fn list(text: &[u8]) -> Result<List, WrongRow> {
    let lists = [List::White, List::Black, List::Grey];
    lists.into_iter().find(|list| text.eq_ignore_ascii_case(list.name().as_bytes())).ok_or(WrongRow::List)
}

/// The last day with access, which only the grey list has.
#[inline]
fn until(text: &[u8], list: List) -> Result<Option<Day>, WrongRow> {
    match list {
        _ if text.is_empty() => Ok(None),
        List::Grey => parse_day(text).map(Some).ok_or(WrongRow::Until),
        List::White | List::Black => Err(WrongRow::UntilOfOthers),
    }
}

/// A TAC: exactly eight digits.
pub(super) fn tac(text: &[u8]) -> Option<u32> {
    if text.len() != 8 {
        return None;
    }
    decimal(text).and_then(|tac| u32::try_from(tac).ok())
}

/// An end of a range of IMSIs, filled up to 15 digits: 5 digits are a network's whole range.
fn padded_imsi(text: &[u8], filler: u64) -> Option<u64> {
    if !(5..=15).contains(&text.len()) {
        return None;
    }
    let value = decimal(text)?;
    Some((text.len()..15).fold(value, |value, _| value * 10 + filler))
}

/// Up to 15 decimal digits as a number.
fn decimal(text: &[u8]) -> Option<u64> {
    text.iter().try_fold(0, |value: u64, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit <= 9).then_some(value * 10 + u64::from(digit))
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) const LAX: Tolerance = Tolerance { strict: false, max_bad_share: 1.0 };

    /// The rows as text, and the report.
    pub(in super::super) fn read_text(
        kind: FileKind,
        text: impl AsRef<[u8]>,
        tolerance: Tolerance,
    ) -> Result<(Vec<String>, FileReport), FileFault> {
        let mut rows = Vec::new();
        let report = read(kind, "test.csv", text.as_ref(), tolerance, &mut |_| {}, |row| {
            rows.push(match row {
                Row::Device { imei, list, reason, until: None } => format!("{imei} {list} {reason}"),
                Row::Device { imei, list, until: Some(day), .. } => format!("{imei} {list} until {day}"),
                Row::Range { from, to, list, reason } => format!("{from}-{to} {list} {reason}"),
                Row::Tac(tac) => format!("{tac:08}"),
                Row::ImsiRange { from, to } => format!("{from:015}-{to:015}"),
                Row::Change { imei, listed } => format!("{imei} {listed:?}"),
                Row::PairChange { imei, imsi, present } => format!("{imei} {} {present}", imsi.padded()),
                Row::Pair { imei, imsi } => format!("{imei} {:015}", imsi.padded()),
            });
            Ok(())
        });
        report.map(|report| (rows, report)).map_err(|error| error.fault)
    }

    fn wrong(kind: FileKind, text: &str) -> Vec<(u64, WrongRow)> {
        let (_, report) = read_text(kind, text, LAX).unwrap();
        assert_eq!(report.wrong_rows, report.first_wrong_rows.len() as u64);
        report.first_wrong_rows.iter().map(|row| (row.line, row.reason)).collect()
    }

    #[test]
    fn the_order_of_columns_and_further_columns_do_not_matter() {
        let text = "Reason , seen,IMEI,list\nstolen,x,35209900176148, Black \n,\"a,b\",3520990017614823,white\n";
        let (rows, report) = read_text(FileKind::Devices, text, LAX).unwrap();
        assert_eq!(rows, ["35209900176148 black stolen", "35209900176148 white "]);
        assert_eq!((report.rows, report.wrong_rows), (2, 0));
    }

    #[test]
    fn the_column_until_may_be_there_and_says_something_of_grey_devices_only() {
        let text = "until,imei,list,reason\n20260501,35209900176148,grey,\n2026-05-01,35209900176148,GREY,\n\
                    ,35209900176148,grey,\n,35209900176148,white,\n20260501,35209900176148,white,\n\
                    20260501,35209900176148,black,stolen\n20260229,35209900176148,grey,\ntomorrow,35209900176148,grey,\n";
        let (rows, report) = read_text(FileKind::Devices, text, LAX).unwrap();
        let until = "35209900176148 grey until 20574";
        assert_eq!(rows, [until, until, "35209900176148 grey ", "35209900176148 white "]);
        let wrong: Vec<_> = report.first_wrong_rows.iter().map(|row| (row.line, row.reason)).collect();
        let [others, date] = [WrongRow::UntilOfOthers, WrongRow::Until];
        assert_eq!(wrong, [(6, others), (7, others), (8, date), (9, date)]);
        let twice = read_text(FileKind::Devices, "until,imei,list,reason,Until\n", LAX);
        assert!(matches!(twice, Err(FileFault::Header { .. })));
        // Of other kinds it is a column as any other.
        assert_eq!(read_text(FileKind::ExemptTacs, "tac,until,until\n35209900,x,y\n", LAX).unwrap().0, ["35209900"]);
    }

    #[test]
    fn each_kind_reads_its_rows() {
        let ranges = "from,to,list,reason\n35209900,35209901,black,x\n352099001761480,35209900176149,white,\n";
        let (rows, _) = read_text(FileKind::Ranges, ranges, LAX).unwrap();
        assert_eq!(rows, ["35209900000000-35209901999999 black x", "35209900176148-35209900176149 white "]);
        let tacs = "tac,name\n00100000,\"Test, \"\"1\"\" of 2\"\n35209900,Phone\n";
        for kind in [FileKind::AllocatedTacs, FileKind::ExemptTacs] {
            assert_eq!(read_text(kind, tacs, LAX).unwrap().0, ["00100000", "35209900"]);
        }
        let imsis = "imsi_from,imsi_to\n00101,00101\n001010000000005,00101000000001\n";
        let (rows, _) = read_text(FileKind::ExemptImsis, imsis, LAX).unwrap();
        assert_eq!(rows, ["001010000000000-001019999999999", "001010000000005-001010000000019"]);
        let (rows, _) = read_text(FileKind::Pairs, "imei,imsi\n35209900176148,001010123456789\n", LAX).unwrap();
        assert_eq!(rows, ["35209900176148 001010123456789"]);
    }

    #[test]
    fn each_fault_of_a_row_has_its_name() {
        let devices = "imei,list,reason\n3520990017614,black,\n35209900176148,blue,\n35209900176148,black,a b\n\
                       35209900176148,black\n00000000000000,grey,\n35209900176148,grey,\n";
        let expected = [
            (2, WrongRow::Imei),
            (3, WrongRow::List),
            (4, WrongRow::Reason),
            (5, WrongRow::Fields(2)),
            (6, WrongRow::Imei),
        ];
        assert_eq!(wrong(FileKind::Devices, devices), expected);
        let ranges = "from,to,list,reason\n35209900,35209900176148,black,\n35209901,35209900,black,\n\
                      35209900,35209900,grey,\n3520990,35209900,white,\n35209900176148,1,white,\n";
        let expected = [
            (2, WrongRow::MixedRange),
            (3, WrongRow::Backwards),
            (4, WrongRow::List),
            (5, WrongRow::RangeEnd),
            (6, WrongRow::RangeEnd),
        ];
        assert_eq!(wrong(FileKind::Ranges, ranges), expected);
        assert_eq!(wrong(FileKind::ExemptTacs, "tac\n3520990\n3520990x\n"), [(2, WrongRow::Tac), (3, WrongRow::Tac)]);
        let imsis = "imsi_from,imsi_to\n0010,00101\n00102,00101\n00101,0010100000000000\n";
        let expected = [(2, WrongRow::ImsiRangeEnd), (3, WrongRow::Backwards), (4, WrongRow::ImsiRangeEnd)];
        assert_eq!(wrong(FileKind::ExemptImsis, imsis), expected);
        let pairs = "imei,imsi\n35209900176148,00101\nx,001010123456789\n";
        assert_eq!(wrong(FileKind::Pairs, pairs), [(2, WrongRow::Imsi), (3, WrongRow::Imei)]);
    }

    #[test]
    fn check_digits_are_counted_not_judged() {
        // 49015420323751 has check digit 8; the last row is an IMEISV.
        let text = "imei,list,reason\n490154203237518,white,\n490154203237510,white,\n490154203237517,white,\n\
                    4901542032375177,white,\n";
        let (rows, report) = read_text(FileKind::Devices, text, LAX).unwrap();
        assert_eq!((rows.len(), report.wrong_rows, report.check_digit_mismatches), (4, 0, 1));
    }

    #[test]
    fn too_large_a_share_of_wrong_rows_refuses_the_file() {
        let text = format!("tac\n{}x\n", "35209900\n".repeat(999));
        let tolerance = |strict, max_bad_share| Tolerance { strict, max_bad_share };
        assert!(read_text(FileKind::ExemptTacs, &text, tolerance(false, 0.001)).is_ok());
        for share in [0.000_9, 0.0, f64::NAN, 2.0] {
            let fault = read_text(FileKind::ExemptTacs, &text, tolerance(false, share)).unwrap_err();
            assert_eq!(fault.to_string(), "1 of 1000 rows are wrong; line 1001: not a TAC: 8 digits");
        }
        let fault = read_text(FileKind::ExemptTacs, &text, tolerance(true, 0.001)).unwrap_err();
        assert_eq!(fault.to_string(), "line 1001: not a TAC: 8 digits");
    }

    #[test]
    fn a_hopeless_file_is_not_read_to_its_end() {
        let text = format!("tac\n{}", "x\n".repeat(200_000));
        let tolerance = Tolerance { strict: false, max_bad_share: 0.001 };
        match read_text(FileKind::ExemptTacs, &text, tolerance) {
            Err(FileFault::WrongRows(report)) => {
                assert_eq!((report.wrong_rows, report.first_wrong_rows.len()), (HOPELESS, KEPT));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(read_text(FileKind::ExemptTacs, &text, LAX).unwrap().1.wrong_rows, 200_000);
    }

    #[test]
    fn a_wrong_header_is_shown_unless_it_may_be_a_row() {
        let fault = |text: &str| read_text(FileKind::Pairs, text, LAX).unwrap_err().to_string();
        let wanted = "is no file of pairs: its header must have imei,imsi; found ";
        assert_eq!(fault("tac,name\n"), format!("{wanted}\"tac,name\""));
        assert_eq!(fault("imei,imsi,IMSI\n"), format!("{wanted}\"imei,imsi,IMSI\""));
        assert_eq!(fault("\x01PK\n"), format!("{wanted}\"\\x01PK\""));
        let headless = fault("35209900176148,001010123456789\n");
        assert_eq!(headless, format!("{wanted}a line with digits: is there a header?"));
        assert_eq!(fault(""), "is empty; it needs at least a header");
        assert_eq!(fault("# nothing\n"), "is empty; it needs at least a header");
    }

    #[test]
    fn no_message_holds_an_imsi() {
        let text = "imei,imsi\n35209900176148,0010101234567890\nx,001010123456789\n001010123456789,1,001010123456789\n";
        let (_, report) = read_text(FileKind::Pairs, text, LAX).unwrap();
        assert_eq!(report.wrong_rows, 3);
        let strict = Tolerance { strict: true, ..LAX };
        let fault = read_text(FileKind::Pairs, text, strict).unwrap_err();
        assert!(!format!("{report:?} {fault} {fault:?}").contains("0010101234"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(
            kind in prop::sample::select(vec![
                FileKind::Devices,
                FileKind::Ranges,
                FileKind::ExemptTacs,
                FileKind::ExemptImsis,
                FileKind::Pairs,
                FileKind::GsmaTacs,
                FileKind::PlainWhite,
                FileKind::DirbsNotificationChanges,
            ]),
            start in prop::sample::select(vec![&b""[..], b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf", b"\xff\xfe"]),
            has_header in any::<bool>(),
            garbage in proptest::collection::vec(any::<u8>(), 0..400),
            likely in "[0-9,\"\r\n#a-c ]{0,400}",
        ) {
            let header = if has_header { kind.columns().join(",") + "\n" } else { String::new() };
            for rest in [&garbage[..], likely.as_bytes()] {
                let _ = read_text(kind, [start, header.as_bytes(), rest].concat(), LAX);
            }
        }
    }
}
