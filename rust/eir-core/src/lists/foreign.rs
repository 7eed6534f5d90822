//! What rows of other people's list files say: those of DIRBS, of the GSMA, of operators (docs/formats.md).
//!
//! Its one job: take such a row for what it means here, or leave it out. `rows` calls it. It never keeps a row.

use std::borrow::Cow;

use super::List;
use super::formats::FileKind;
use super::report::WrongRow;
use super::rows::{Parser, Row, tac};
use super::tag::MAX_REASON;
use super::zone::parse_day;
use crate::imei::{Imei, Imsi, SNRS_PER_TAC};

/// What a change of DIRBS does.
enum Turn {
    Set,
    Remove,
    /// Nothing that its file is to say: another file says it, or another row.
    Nothing,
}

/// The reason of devices that are stolen, as the profiles know it.
pub(super) const STOLEN: &str = "stolen";
/// The reason of devices that are barred.
pub(super) const BARRED: &str = "barred";

/// What a row of a foreign kind says; `None` for one that is left out. Its fields are those of [`FileKind::columns`].
pub(super) fn row<'r>(parser: &mut Parser, kind: FileKind, fields: [&'r [u8]; 5]) -> Result<Option<Row<'r>>, WrongRow> {
    let [first, second, third, fourth, _] = fields;
    let device = |imei, list, reason| Ok(Some(Row::Device { imei, list, reason, until: None }));
    let none = Cow::Borrowed("");
    match kind {
        FileKind::PlainWhite => device(imei(parser, first)?, List::White, none),
        FileKind::PlainBlack => device(imei(parser, first)?, List::Black, none),
        FileKind::Golden => device(imei(parser, first)?, List::White, none),
        FileKind::Barred => device(imei(parser, first)?, List::Black, Cow::Borrowed(BARRED)),
        FileKind::SeenBefore(day) => {
            let (imei, seen) = (imei(parser, first)?, parse_day(second).ok_or(WrongRow::FirstSeen)?);
            if seen < day { device(imei, List::White, none) } else { Ok(None) }
        }
        FileKind::Stolen => {
            let imei = imei(parser, first)?;
            if is_or_empty(third, b"blacklist") { device(imei, List::Black, Cow::Borrowed(STOLEN)) } else { Ok(None) }
        }
        FileKind::Registration => {
            let imei = imei(parser, first)?;
            if is_or_empty(second, b"whitelist") { device(imei, List::White, none) } else { Ok(None) }
        }
        FileKind::GsmaTacs => tac(first).map(|tac| Some(Row::Tac(tac))).ok_or(WrongRow::Tac),
        FileKind::BarredTacs => {
            let from = u64::from(tac(first).ok_or(WrongRow::Tac)?) * SNRS_PER_TAC;
            Ok(Some(Row::Range {
                from,
                to: from + (SNRS_PER_TAC - 1),
                list: List::Black,
                reason: Cow::Borrowed(BARRED),
            }))
        }
        FileKind::Pairing | FileKind::DirbsExceptions => {
            let (imei, imsi) = (imei(parser, first)?, imsi(second)?);
            Ok(Some(Row::Pair { imei, imsi }))
        }
        FileKind::DirbsBlacklist => device(imei(parser, first)?, List::Black, first_reason(third)),
        FileKind::DirbsNotifications => {
            let (imei, until) = (imei(parser, first)?, parse_day(second).ok_or(WrongRow::Until)?);
            Ok(Some(Row::Device { imei, list: List::Grey, reason: first_reason(third), until: Some(until) }))
        }
        FileKind::DirbsBlocked => blocked(parser, first, third, Turn::Set),
        FileKind::DirbsUnblocked => blocked(parser, first, third, Turn::Remove),
        FileKind::DirbsBlacklistChanges => blocked(parser, first, third, turn(fourth)?),
        FileKind::DirbsNew => notified(parser, [first, second, third], Turn::Set),
        FileKind::DirbsResolved => notified(parser, [first, second, third], Turn::Remove),
        FileKind::DirbsNotificationChanges => notified(parser, [first, second, third], turn(fourth)?),
        FileKind::DirbsAdded => paired(parser, first, second, Turn::Set),
        FileKind::DirbsRemoved => paired(parser, first, second, Turn::Remove),
        FileKind::DirbsExceptionChanges => paired(parser, first, second, turn(third)?),
        // Those `rows` reads itself.
        FileKind::Devices
        | FileKind::Ranges
        | FileKind::AllocatedTacs
        | FileKind::ExemptTacs
        | FileKind::ExemptImsis
        | FileKind::Pairs
        | FileKind::DeviceChanges
        | FileKind::PairChanges => Ok(None),
    }
}

fn blocked<'r>(parser: &mut Parser, device: &[u8], reasons: &'r [u8], turn: Turn) -> Result<Option<Row<'r>>, WrongRow> {
    let imei = imei(parser, device)?;
    Ok(match turn {
        Turn::Set => Some(Row::Change { imei, listed: Some((List::Black, first_reason(reasons), None)) }),
        Turn::Remove => Some(Row::Change { imei, listed: None }),
        Turn::Nothing => None,
    })
}

fn notified<'r>(parser: &mut Parser, fields: [&'r [u8]; 3], turn: Turn) -> Result<Option<Row<'r>>, WrongRow> {
    let [device, until, reasons] = fields;
    let imei = imei(parser, device)?;
    Ok(match turn {
        Turn::Set => {
            let until = parse_day(until).ok_or(WrongRow::Until)?;
            Some(Row::Change { imei, listed: Some((List::Grey, first_reason(reasons), Some(until))) })
        }
        Turn::Remove => Some(Row::Change { imei, listed: None }),
        Turn::Nothing => None,
    })
}

fn paired<'r>(parser: &mut Parser, device: &[u8], by: &[u8], turn: Turn) -> Result<Option<Row<'r>>, WrongRow> {
    let (imei, imsi) = (imei(parser, device)?, imsi(by)?);
    Ok(match turn {
        Turn::Set => Some(Row::PairChange { imei, imsi, present: true }),
        Turn::Remove => Some(Row::PairChange { imei, imsi, present: false }),
        Turn::Nothing => None,
    })
}

/// What a change does, by the words of DIRBS for what it gives out and what it is given.
fn turn(text: &[u8]) -> Result<Turn, WrongRow> {
    Ok(match text {
        b"blocked" | b"added" | b"new" | b"changed" | b"add" | b"update" => Turn::Set,
        b"unblocked" | b"removed" | b"resolved" | b"remove" => Turn::Remove,
        // The blacklist has it, or others still use the device.
        b"blacklisted" | b"no_longer_seen" => Turn::Nothing,
        _ => return Err(WrongRow::DirbsChangeType),
    })
}

/// An IMEI as networks record it, where signs other than digits may stand.
fn imei(parser: &mut Parser, text: &[u8]) -> Result<Imei, WrongRow> {
    parser.imei(text).map_err(|wrong| {
        let recorded = (1..=16).contains(&text.len())
            && text.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'*' | b'#'));
        if recorded && !text.iter().all(u8::is_ascii_digit) { WrongRow::NotDecimal } else { wrong }
    })
}

fn imsi(text: &[u8]) -> Result<Imsi, WrongRow> {
    Imsi::from_digits(text).ok_or(WrongRow::Imsi)
}

fn is_or_empty(text: &[u8], word: &[u8]) -> bool {
    text.is_empty() || text.eq_ignore_ascii_case(word)
}

/// The first of reasons that `|` divides, in the letters that reasons have here.
fn first_reason(reasons: &[u8]) -> Cow<'_, str> {
    let first = reasons.split(|byte| *byte == b'|').map(<[u8]>::trim_ascii).find(|reason| !reason.is_empty());
    let first = first.unwrap_or_default();
    let first = first.get(..MAX_REASON).unwrap_or(first);
    let kept = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    match std::str::from_utf8(first) {
        Ok(reason) if first.iter().all(kept) => Cow::Borrowed(reason),
        _ => Cow::Owned(
            first
                .iter()
                .map(u8::to_ascii_lowercase)
                .map(|byte| if kept(&byte) { char::from(byte) } else { '-' })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{FileFault, FileReport};
    use super::super::rows::tests::{LAX, read_text};
    use super::*;

    /// What a file of a snapshot says.
    fn said(kind: &str, text: &str) -> (Vec<String>, FileReport) {
        read_text(FileKind::of_snapshot(kind).unwrap(), text, LAX).unwrap()
    }

    #[test]
    fn what_dirbs_gives_out_is_black_grey_and_pairs() {
        let (rows, _) = said(
            "dirbs-blacklist",
            "imei,block_date,reasons\n35209900176148,20260101,IMEI is Stolen (local)|dup\n352099001761481,,\n\
             35209900176149,20260101, | a reason far longer than those that a snapshot takes\n",
        );
        let long = "35209900176149 black a-reason-far-longer-than-those-t";
        assert_eq!(rows, ["35209900176148 black imei-is-stolen--local-", "35209900176148 black ", long]);
        let notifications = "imei,imsi,msisdn,block_date,reasons,amnesty_granted\n\
                             35209900176148,001010123456789,77010000001,20260501,dup,f\n\
                             35209900176148,001010123456789,77010000001,soon,dup,f\n";
        let (rows, report) = said("dirbs-notifications", notifications);
        assert_eq!(rows, ["35209900176148 grey until 20574"]);
        assert_eq!(report.first_wrong_rows[0].reason, WrongRow::Until);
        let pairs = "imei,imsi,msisdn\n35209900176148,001010123456789,77010000001\n";
        assert_eq!(said("dirbs-exceptions", pairs).0, ["35209900176148 001010123456789"]);
        assert_eq!(said("pairing", pairs).0, ["35209900176148 001010123456789"]);
        // One file taken for another would block, or pair, whom it is only to tell.
        for kind in ["dirbs-blacklist", "dirbs-exceptions", "pairing", "barred"] {
            let kind = FileKind::of_snapshot(kind).unwrap();
            assert!(matches!(read_text(kind, notifications, LAX), Err(FileFault::Header { .. })), "{kind}");
        }
        let fault = read_text(FileKind::DirbsBlacklist, notifications, LAX).unwrap_err().to_string();
        assert!(fault.contains("must have imei,block_date,reasons and not imsi; found"), "{fault}");
        let changes = "imei,block_date,reasons,change_type\n35209900176148,20260101,x,unblocked\n";
        assert!(read_text(FileKind::DirbsBlacklist, changes, LAX).is_err());
        assert!(read_text(FileKind::DirbsBlacklistChanges, changes, LAX).is_ok());
    }

    #[test]
    fn what_dirbs_is_given_is_taken_with_its_status() {
        let text = "imei,reporting_date,status\n35209900000001,20260101,blacklist\n35209900000002,,\n\
                    35209900000003,20260101,recovered\n35209900000004,20260101,removed\n";
        let (rows, report) = said("stolen", text);
        assert_eq!(rows, ["35209900000001 black stolen", "35209900000002 black stolen"]);
        assert_eq!((report.rows, report.left_out, report.wrong_rows), (4, 2, 0));
        let text = "approved_imei,make,model,status\n35209900000001,a,b,Whitelist\n35209900000002,a,b,\n\
                    35209900000003,a,b,not_registered\n";
        let (rows, report) = said("registration", text);
        assert_eq!((rows, report.left_out), (vec!["35209900000001 white ".into(), "35209900000002 white ".into()], 1));
        assert_eq!(said("stolen", "imei,reporting_date\n35209900000001,\n").0.len(), 1);
        assert_eq!(said("barred", "imei\n35209900000001\n").0, ["35209900000001 black barred"]);
        assert_eq!(said("golden", "golden_imei\n35209900000001\n").0, ["35209900000001 white "]);
        assert_eq!(said("barred-tac", "TAC\n35209900\n").0, ["35209900000000-35209900999999 black barred"]);
    }

    #[test]
    fn imeis_as_networks_record_them_are_counted_apart() {
        let text = "imei\n3520990000000A\n*#06#\n#31#\n35209900000001\n3520990000000\nimei\n";
        let (rows, report) = said("barred", text);
        assert_eq!(rows.len(), 1);
        assert_eq!((report.rows, report.not_decimal, report.wrong_rows), (6, 3, 2));
        let (rows, report) = said("plain-white", "# of an operator\n#31#\n35209900000001\n");
        assert_eq!((rows.len(), report.rows), (1, 1));
        let none = super::super::rows::Tolerance { strict: true, max_bad_share: 0.0 };
        assert!(read_text(FileKind::Barred, "imei\n3520990000000A\n*#06#\n", none).is_ok());
        let own = read_text(FileKind::Devices, "imei,list,reason\n3520990000000A,white,\n", LAX).unwrap().1;
        assert_eq!((own.not_decimal, own.wrong_rows), (0, 1));
    }

    #[test]
    fn the_gsma_divides_by_pipes_and_knows_no_quotes() {
        let text = "Marketing Name|Bands|TAC|Maker\n5\" Phone, one|x|35209900|a\n\"Phone\" \"|x|01000100|b\nc|x|1|d\n";
        let (rows, report) = said("gsma-tac", text);
        assert_eq!((rows, report.wrong_rows), (vec!["35209900".into(), "01000100".into()], 1));
    }

    #[test]
    fn plain_files_have_no_header_and_utf16_is_read() {
        let text = "35209900000001\r\n\r\n 35209900000002\n35209900000003,x\n";
        let (rows, report) = said("plain-white", text);
        assert_eq!(rows, ["35209900000001 white ", "35209900000002 white "]);
        assert_eq!((report.first_wrong_rows[0].line, report.first_wrong_rows[0].reason), (4, WrongRow::Fields(2)));
        let utf16: Vec<u8> = std::iter::once(0xfeff).chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
        let (rows, report) = read_text(FileKind::PlainBlack, utf16, LAX).unwrap();
        assert_eq!(rows, ["35209900000001 black ", "35209900000002 black "]);
        assert_eq!(report.wrong_rows, 1);
    }

    #[test]
    fn what_was_seen_before_a_day_is_white() {
        let text = "imei,first_seen\n35209900000001,20260430\n35209900000002,2026-05-01\n35209900000003,\n";
        let (rows, report) = said("seen-before-20260501", text);
        assert_eq!(rows, ["35209900000001 white "]);
        assert_eq!((report.left_out, report.first_wrong_rows[0].reason), (1, WrongRow::FirstSeen));
    }
}
