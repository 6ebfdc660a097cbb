// Package conformance holds the table of what bitw does of the IPsec RFCs, clause by
// clause, and checks it: each row names the tests that fail without it, and each
// row that no test stands behind says why. The table is rendered to
// integration/CONFORMANCE.md by
//
//	go test ./integration/conformance -update
package conformance
