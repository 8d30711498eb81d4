//! System calls, and the only `unsafe` of the product.
#![allow(unsafe_code)] // each block says why it is sound

pub mod object;
pub mod tree;

pub use object::ObjectKey;
pub use tree::Tree;
