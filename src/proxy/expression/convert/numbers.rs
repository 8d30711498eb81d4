//! Converters of integers. Nothing wraps: an overflow stops at the limit, as in HAProxy.

use super::{Converter, row};
use crate::proxy::expression::arguments::{Argument, Arguments, Slot};
use crate::proxy::expression::{Context, Kind, Sample};

const NUMBER: &[Slot] = &[Slot::Number];
const I: Kind = Kind::Integer;

pub(super) const TABLE: &[Converter] = &[
    row("add", I, I, add, "plus a number").takes(NUMBER, 1),
    row("sub", I, I, sub, "minus a number").takes(NUMBER, 1),
    row("mul", I, I, mul, "times a number").takes(NUMBER, 1),
    row("div", I, I, div, "divided by a number").takes(NUMBER, 1),
    row("mod", I, I, modulo, "remainder of a division").takes(NUMBER, 1),
    row("and", I, I, and, "bits of both").takes(NUMBER, 1),
    row("or", I, I, or, "bits of either").takes(NUMBER, 1),
    row("xor", I, I, xor, "bits of one of them").takes(NUMBER, 1),
    row("cpl", I, I, cpl, "all bits flipped"),
    row("neg", I, I, neg, "the opposite"),
    row("bool", I, Kind::Bool, truth, "not zero"),
    row("not", I, Kind::Bool, not, "zero"),
    row("even", I, Kind::Bool, even, "even"),
    row("odd", I, Kind::Bool, odd, "odd"),
];

fn operands(sample: &Sample<'_>, arguments: &Arguments, context: &Context<'_>) -> Option<(i64, i64)> {
    let other = match arguments.get(0)? {
        Argument::Integer(value) => *value,
        Argument::Variable(variable) => context.variable(*variable)?.to_integer()?,
        _ => return None,
    };
    Some((sample.to_integer()?, other))
}

macro_rules! operation {
    ($name:ident, $a:ident, $b:ident, $result:expr) => {
        fn $name<'e>(
            sample: Sample<'e>,
            arguments: &'e Arguments,
            context: &Context<'e>,
        ) -> Option<Sample<'e>> {
            let ($a, $b) = operands(&sample, arguments, context)?;
            Some(Sample::Integer($result))
        }
    };
}

operation!(add, a, b, a.saturating_add(b));
operation!(sub, a, b, a.saturating_sub(b));
operation!(mul, a, b, a.saturating_mul(b));
// HAProxy: a division by zero gives the largest number, a remainder by zero gives zero.
operation!(div, a, b, if b == 0 { i64::MAX } else { a.saturating_div(b) });
operation!(modulo, a, b, if b == 0 { 0 } else { a.checked_rem(b).unwrap_or(0) });
operation!(and, a, b, a & b);
operation!(or, a, b, a | b);
operation!(xor, a, b, a ^ b);

macro_rules! alone {
    ($name:ident, $a:ident, $result:expr) => {
        fn $name<'e>(sample: Sample<'e>, _: &'e Arguments, _: &Context<'e>) -> Option<Sample<'e>> {
            let $a = sample.to_integer()?;
            Some($result)
        }
    };
}

alone!(cpl, a, Sample::Integer(!a));
alone!(neg, a, Sample::Integer(a.saturating_neg()));
alone!(truth, a, Sample::Bool(a != 0));
alone!(not, a, Sample::Bool(a == 0));
alone!(even, a, Sample::Bool(a & 1 == 0));
alone!(odd, a, Sample::Bool(a & 1 == 1));
