//! Content-defined chunking (FastCDC 16/64/256 KiB) with BLAKE3 names.
