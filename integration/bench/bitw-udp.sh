#!/usr/bin/env bash
# bitw.sh with ESP in UDP.
BITW_ENCAP=yes exec "$(dirname "${BASH_SOURCE[0]}")/bitw.sh" "$@"
