//! `stick-table` (4.2 of the manual).

use super::draft::{Context, Draft};
use super::model::{StickKey, StickTable};
use super::values::{Unit, number, size, time};
use super::words::{Parsed, Words};

/// `stick-table type TYPE [len N] size N [expire TIME] [nopurge]`.
pub(crate) fn table(draft: &mut Draft, words: &mut Words<'_>, _: &mut Context<'_>) -> Parsed<()> {
    let site = words.site_before();
    let (mut key, mut entries, mut expire, mut nopurge) = (None, None, None, false);
    while let Some(word) = words.next() {
        match word {
            "type" => key = Some(self::key(words)?),
            "size" => entries = Some(size(words)?).filter(|size| *size > 0),
            "expire" => expire = Some(time(words, Unit::Milliseconds)?).filter(|time| !time.is_zero()),
            "nopurge" => nopurge = true,
            "srvkey" => match words.demand("name")? {
                "name" => {}
                _ => return Err(words.problem_before("servers are remembered by name", "name", "")),
            },
            "store" => {
                let next = "the server itself is always stored; remove `store`";
                return Err(words.problem_before("rates and counters are not tracked yet", "", next));
            }
            "peers" | "write-to" => {
                let what = "stick tables are not replicated to peers yet";
                return Err(words.problem_before(what, "", "remove it"));
            }
            other => {
                let what = format!("unknown word `{other}`");
                return Err(words.problem_before(&what, "type, len, size, expire, nopurge, srvkey", ""));
            }
        }
    }
    let Some((key, size)) = key.zip(entries) else {
        let what = "a stick table needs a type and a size";
        return Err(words.problem_before(what, "type ip size 200k", "add what is missing"));
    };
    draft.stick_table = Some(StickTable { site, key, size, expire, nopurge });
    Ok(())
}

fn key(words: &mut Words<'_>) -> Parsed<StickKey> {
    let expected = "ip, ipv6, integer, string or binary";
    let length = |words: &mut Words<'_>, default: usize| match words.take("len") {
        true => number(words, "bytes", 1..=65_535_usize),
        false => Ok(default),
    };
    Ok(match words.demand(expected)? {
        "ip" => StickKey::Ip,
        "ipv6" => StickKey::Ipv6,
        "integer" => StickKey::Integer,
        "string" => StickKey::String(length(words, 31)?),
        "binary" => StickKey::Binary(length(words, 32)?),
        other => return Err(words.problem_before(&format!("unknown type `{other}`"), expected, "")),
    })
}
