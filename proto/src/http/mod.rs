//! HTTP messages without their wire form: what `http1` parses into and writes from, and what rules act on.
//! A later wire (HTTP/2) fills in the same types.

mod fields;
mod head;

pub use fields::{FieldIndex, Fields};
pub use head::{Method, RequestHead, ResponseHead, Version};
