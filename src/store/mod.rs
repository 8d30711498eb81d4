//! The backup's history: chunks, manifests, packs (the truth), catalog (derived).

pub mod chunker;
pub mod manifest;
pub mod pack;
