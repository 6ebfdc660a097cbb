// Package xfrmpeer runs a real Linux kernel with its own ESP and AH as a peer
// for tests.
package xfrmpeer
