//! Hashes, with HAProxy's optional avalanche or seed.

use super::texts::bytes;
use super::{Converter, row};
use crate::proxy::expression::arguments::{Arguments, Slot};
use crate::proxy::expression::{Context, Kind, Sample, hash};

const OPTION: &[Slot] = &[Slot::Integer];
const B: Kind = Kind::Binary;
const I: Kind = Kind::Integer;

pub(super) const TABLE: &[Converter] = &[
    row("crc32", B, I, crc32, "CRC-32").takes(OPTION, 0),
    row("crc32c", B, I, crc32c, "CRC-32C").takes(OPTION, 0),
    row("djb2", B, I, djb2, "hash DJB2").takes(OPTION, 0),
    row("sdbm", B, I, sdbm, "hash SDBM").takes(OPTION, 0),
    row("wt6", B, I, wt6, "hash WT6").takes(OPTION, 0),
    row("xxh32", B, I, xxh32, "xxHash of 32 bits, with a seed").takes(OPTION, 0),
    row("xxh64", B, I, xxh64, "xxHash of 64 bits, with a seed").takes(OPTION, 0),
    row("xxh3", B, I, xxh3, "XXH3 of 64 bits, with a seed").takes(OPTION, 0),
];

macro_rules! avalanched {
    ($name:ident) => {
        fn $name<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
            let value = hash::$name(&bytes(sample));
            let value = if arguments.integer(0).unwrap_or(0) != 0 { hash::avalanche(value) } else { value };
            Some(Sample::Integer(value.into()))
        }
    };
}

avalanched!(crc32);
avalanched!(crc32c);
avalanched!(djb2);
avalanched!(sdbm);
avalanched!(wt6);

/// A seed's bits; HAProxy keeps it in 64 signed ones.
fn seed(arguments: &Arguments) -> u64 {
    arguments.integer(0).unwrap_or(0).cast_unsigned()
}

fn xxh32<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let low = u32::try_from(seed(arguments) & 0xffff_ffff).ok()?;
    Some(Sample::Integer(twox_hash::XxHash32::oneshot(low, &bytes(sample)).into()))
}

fn xxh64<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    Some(Sample::Integer(twox_hash::XxHash64::oneshot(seed(arguments), &bytes(sample)).cast_signed()))
}

fn xxh3<'e>(sample: Sample<'e>, arguments: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
    let value = twox_hash::XxHash3_64::oneshot_with_seed(seed(arguments), &bytes(sample));
    Some(Sample::Integer(value.cast_signed()))
}
