//! Manifests: paging of extents into content-named blobs.
