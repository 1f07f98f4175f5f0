#!/usr/bin/env bash
# For RUSTC_WRAPPER: has pgrx take the bindings that it ships for docs.rs instead of a server's headers.
#
# Those are generated from the headers of each server version at pgrx's release. The flag is given to that
# crate alone, because others ask for a nightly compiler when they see it.
for argument in "$@"; do
    [ "$argument" != pgrx_pg_sys ] || exec "$@" --cfg docsrs
done
exec "$@"
