//! System calls, and the only `unsafe` of the product.
#![allow(unsafe_code)] // each block says why it is sound

pub mod ahead;
mod by_name;
pub mod cache;
pub mod credentials;
pub mod descriptors;
pub mod directory;
pub mod fanotify;
pub mod file;
pub mod handle;
pub mod listening;
pub mod local_time;
pub mod mounts;
pub mod name_service;
mod names;
pub mod object;
pub mod process;
pub mod reactor;
pub mod receive;
pub mod signals;
pub mod statx;
pub mod tree;
pub mod xattr;

pub use file::{
    fsync_dir, link_max, path_of, pread_append, pread_cached, punch_hole, seek_data, seek_hole,
    sync_file_range, syncfs,
};
pub use object::{KeyKind, ObjectKey};
pub use process::{
    Privileges, boot_id, coarse_now, end_with_parent, keep_freed_memory, leave_open, nameless_file, now,
    privileges, process_memory, raise_descriptor_limit, set_umask_zero, trim_memory,
};
pub use tree::{EachName, EntryHints, Found, Stat, Tree};

#[cfg(test)]
mod tests;
