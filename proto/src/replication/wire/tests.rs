//! Golden bytes, round trips and refusals.
