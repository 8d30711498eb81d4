//! haproxy.cfg: words, sections, meaning.
//!
//! `words` splits a file as HAProxy does, with positions; the section parsers fill `model`; `vocabulary` is the one
//! table of known words and their class (honoured, without meaning here, refused).

pub mod model;
pub mod words;

pub use model::Config;
